// Tiles of the scalar level; tiles_plain.inl.
#include "soardb/batch.hpp"

namespace soardb {
namespace {
#include "tiles_plain.inl"
}  // namespace

extern const Tiles kTilesScalar;
const Tiles kTilesScalar{"scalar", scan, maxima};

}  // namespace soardb
