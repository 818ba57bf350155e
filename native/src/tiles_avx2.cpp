// Tiles of the avx2 level; tiles_plain.inl.
#include "soardb/batch.hpp"

namespace soardb {
namespace {
#include "tiles_plain.inl"
}  // namespace

extern const Tiles kTilesAvx2;
const Tiles kTilesAvx2{"avx2", scan, maxima};

}  // namespace soardb
