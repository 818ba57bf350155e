// 64-bit ARM: Advanced SIMD as every ARMv8.0 processor has it; no dot-product instructions needed.
#include <arm_neon.h>

#include "soardb/kernels.hpp"

namespace soardb {
namespace {

constexpr int kLanes = 4;
constexpr int kRows = 2;  // 16 accumulators of 4 lanes, 8 panel columns
struct Sums16 {
  int32x4_t v[4];  // vectors 0..3, 4..7, 8..11, 12..15
};

#define fma_part(a, b, c) \
  (FV) vfmaq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b))
#include "primitives_plain.inl"

// Sixteen 16-bit sums, in order.
struct Bytes16 {
  uint16x8_t low, high;
};
static inline void add_bytes(Bytes16& acc, uint8x16_t a, uint8x16_t b) {
  acc.low = vaddq_u16(acc.low, vaddl_u8(vget_low_u8(a), vget_low_u8(b)));
  acc.high = vaddq_u16(acc.high, vaddl_high_u8(a, b));
}
static inline int32x4_t add_words(int32x4_t sums, uint16x4_t words) {
  return vreinterpretq_s32_u32(vaddw_u16(vreinterpretq_u32_s32(sums), words));
}
static inline void flush(Bytes16& acc, Sums16& sums) {
  sums.v[0] = add_words(sums.v[0], vget_low_u16(acc.low));
  sums.v[1] = add_words(sums.v[1], vget_high_u16(acc.low));
  sums.v[2] = add_words(sums.v[2], vget_low_u16(acc.high));
  sums.v[3] = add_words(sums.v[3], vget_high_u16(acc.high));
  acc.low = acc.high = vdupq_n_u16(0);
}

static inline Sums16 sums16(const uint8_t* packed, int64_t lines, const uint8_t* lut,
                            int32_t bias) {
  Sums16 sums;
  for (int32x4_t& four : sums.v) four = vdupq_n_s32(bias);
  Bytes16 even{vdupq_n_u16(0), vdupq_n_u16(0)}, odd = even;
  const uint8x16_t nibble = vdupq_n_u8(0x0F);
  for (int64_t g = 0; g < lines; ++g, packed += 64, lut += 128) {
    // Taking every fourth byte gives 16 vectors of one pair of sub-spaces in each register.
    const uint8x16x4_t line = vld4q_u8(packed);
#pragma GCC unroll 4
    for (int l = 0; l < 4; ++l) {
      const uint8x16_t low = vld1q_u8(lut + 16 * l), high = vld1q_u8(lut + 64 + 16 * l);
      add_bytes(l % 2 ? odd : even, vqtbl1q_u8(low, vandq_u8(line.val[l], nibble)),
                vqtbl1q_u8(high, vshrq_n_u8(line.val[l], 4)));
    }
    // A 16-bit lane takes 4 of a line's 8 sub-spaces: 64 lines of 255s are 65,280.
    if ((g & 63) == 63) {
      flush(even, sums);
      flush(odd, sums);
    }
  }
  flush(even, sums);
  flush(odd, sums);
  return sums;
}
static inline void store_sums(int32_t* out, const Sums16& sums) {
  for (int p = 0; p < 4; ++p) vst1q_s32(out + 4 * p, sums.v[p]);
}
static inline Sums16 load_sums(const int32_t* in) {
  Sums16 sums;
  for (int p = 0; p < 4; ++p) sums.v[p] = vld1q_s32(in + 4 * p);
  return sums;
}
static inline uint32_t mask_above(const Sums16& sums, int32_t threshold) {
  const int32x4_t t = vdupq_n_s32(threshold);
  const uint16x8_t low = vcombine_u16(vmovn_u32(vcgtq_s32(sums.v[0], t)),
                                      vmovn_u32(vcgtq_s32(sums.v[1], t)));
  const uint16x8_t high = vcombine_u16(vmovn_u32(vcgtq_s32(sums.v[2], t)),
                                       vmovn_u32(vcgtq_s32(sums.v[3], t)));
  const uint16x8_t bits = {1, 2, 4, 8, 16, 32, 64, 128};
  return vaddvq_u16(vandq_u16(low, bits)) | static_cast<uint32_t>(vaddvq_u16(vandq_u16(high, bits)))
                                                << 8;
}
#include "filter_plain.inl"
#include "push_plain.inl"

// An unsigned byte less 128 is its upper bit flipped, read as a signed byte.
static inline int8x16_t load_signed(const uint8_t* bytes) {
  return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(bytes), vdupq_n_u8(0x80)));
}

static inline int32_t dot_bytes(const uint8_t* row, const int8_t* query, int64_t d) {
  int32x4_t products = vdupq_n_s32(0), shift = products;
  int64_t i = 0;
  for (; i + 16 <= d; i += 16) {
    const int8x16_t r = load_signed(row + i), q = vld1q_s8(query + i);
    // A query byte is never -128, so two products of at most 128 * 127 fit a 16-bit lane.
    const int16x8_t low = vmull_s8(vget_low_s8(r), vget_low_s8(q));
    products = vpadalq_s16(products, vmlal_high_s8(low, r, q));
    shift = vpadalq_s16(shift, vpaddlq_s8(q));
  }
  int32_t sum = vaddvq_s32(products) + 128 * vaddvq_s32(shift);
  for (; i < d; ++i) sum += row[i] * query[i];
  return sum;
}
static inline void score_blocks(const uint8_t* blocks, int64_t nblock, int64_t quads,
                                const int8_t* query, int32_t correction, int32_t* out) {
  int32_t shift = 0;
  for (int64_t j = 0; j < 4 * quads; ++j) shift += query[j];
  const int32x4_t start = vdupq_n_s32(128 * shift - correction);
  for (int64_t b = 0; b < nblock; ++b, out += 16) {
    // Two partial sums for each of two centroids in a register: centroids 4p, 4p + 1 | + 2, + 3.
    int32x4_t low[4], high[4];
    for (int p = 0; p < 4; ++p) low[p] = high[p] = vdupq_n_s32(0);
    for (int64_t j = 0; j < quads; ++j, blocks += 64) {
      int32_t four;
      __builtin_memcpy(&four, query + 4 * j, 4);
      const int8x16_t q = vreinterpretq_s8_s32(vdupq_n_s32(four));
#pragma GCC unroll 4
      for (int p = 0; p < 4; ++p) {
        const int8x16_t c = load_signed(blocks + 16 * p);
        low[p] = vpadalq_s16(low[p], vmull_s8(vget_low_s8(c), vget_low_s8(q)));
        high[p] = vpadalq_s16(high[p], vmull_high_s8(c, q));
      }
    }
    for (int p = 0; p < 4; ++p)
      vst1q_s32(out + 4 * p, vaddq_s32(vpaddq_s32(low[p], high[p]), start));
  }
}

#define SOARDB_FOLDS "folds_plain.inl"
#include "kernels_common.inl"
#include "primitives_plain_late.inl"

}  // namespace

extern const Kernels kNeon;
const Kernels kNeon = make_table("neon");

}  // namespace soardb
