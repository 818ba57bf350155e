// Plain C++: runs anywhere, and is the oracle of the other levels inside this library.
#include "soardb/kernels.hpp"

namespace soardb {
namespace {

constexpr int kLanes = 4;
constexpr int kRows = 1;
struct Sums16 {
  int32_t v[16];
};

#define fma_part(a, b, c) ((a) * (b) + (c))
#include "primitives_plain.inl"

static inline Sums16 sums16(const uint8_t* packed, int64_t lines, const uint8_t* lut,
                            int32_t bias) {
  Sums16 sums;
  for (int i = 0; i < 16; ++i) sums.v[i] = bias;
  for (int64_t g = 0; g < lines; ++g, packed += 64, lut += 128)
    for (int i = 0; i < 16; ++i)
      for (int l = 0; l < 4; ++l) {
        const uint8_t byte = packed[4 * i + l];
        sums.v[i] += lut[16 * l + (byte & 15)] + lut[64 + 16 * l + (byte >> 4)];
      }
  return sums;
}
static inline void store_sums(int32_t* out, Sums16 sums) { __builtin_memcpy(out, sums.v, 64); }
static inline Sums16 load_sums(const int32_t* in) {
  Sums16 sums;
  __builtin_memcpy(sums.v, in, 64);
  return sums;
}
static inline uint32_t mask_above(const Sums16& sums, int32_t threshold) {
  uint32_t mask = 0;
  for (int i = 0; i < 16; ++i) mask |= static_cast<uint32_t>(sums.v[i] > threshold) << i;
  return mask;
}
#include "filter_plain.inl"
#include "push_plain.inl"

static inline int32_t dot_bytes(const uint8_t* row, const int8_t* query, int64_t d) {
  int32_t sum = 0;
  for (int64_t i = 0; i < d; ++i) sum += row[i] * query[i];
  return sum;
}
static inline void score_blocks(const uint8_t* blocks, int64_t nblock, int64_t quads,
                                const int8_t* query, int32_t correction, int32_t* out) {
  for (int64_t b = 0; b < nblock; ++b, out += 16) {
    for (int i = 0; i < 16; ++i) out[i] = -correction;
    for (int64_t j = 0; j < quads; ++j, blocks += 64)
      for (int i = 0; i < 16; ++i)
        for (int l = 0; l < 4; ++l) out[i] += blocks[4 * i + l] * query[4 * j + l];
  }
}

#define SOARDB_FOLDS "folds_plain.inl"
#include "kernels_common.inl"
#include "primitives_plain_late.inl"

}  // namespace

extern const Kernels kScalar;
const Kernels kScalar = make_table("scalar");

}  // namespace soardb
