// AVX2 and FMA: every x86-64 server and laptop of the last ten years.
#include <immintrin.h>

#include "soardb/kernels.hpp"

namespace soardb {
namespace {

constexpr int kLanes = 8;
constexpr int kRows = 3;  // 12 accumulators of 8 lanes, 4 panel columns
struct Sums16 {
  __m256i low, high;  // vectors 0..7, 8..15
};

#define fma_part(a, b, c) \
  (FV) _mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c))
#include "primitives_plain.inl"

// A quarter line holds 4 vectors x 4 sub-spaces; four of them, transposed as a matrix of dwords after
// a byte shuffle, give 16 vectors of one sub-space in each 128-bit lane, which pshufb can look up.
static inline void transpose_line(const uint8_t* line, __m256i* subs01, __m256i* subs23) {
  const __m256i shuffle = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0,
                                           4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  // a: lanes (vectors 0-3 | 4-7), b: lanes (8-11 | 12-15); dword L of a lane is sub-space L.
  const __m256i a = _mm256_shuffle_epi8(_mm256_loadu_si256((const __m256i*)line), shuffle);
  const __m256i b = _mm256_shuffle_epi8(_mm256_loadu_si256((const __m256i*)(line + 32)), shuffle);
  const __m256i even = _mm256_permute2x128_si256(a, b, 0x20);  // vectors 0-3 | 8-11
  const __m256i odd = _mm256_permute2x128_si256(a, b, 0x31);   // vectors 4-7 | 12-15
  const __m256i low = _mm256_unpacklo_epi32(even, odd);   // lane: L0 v0-7, L1 v0-7 | L0 v8-15, L1
  const __m256i high = _mm256_unpackhi_epi32(even, odd);  // the same for L2, L3
  *subs01 = _mm256_permute4x64_epi64(low, 0xD8);   // L0 v0-15 | L1 v0-15
  *subs23 = _mm256_permute4x64_epi64(high, 0xD8);  // L2 v0-15 | L3 v0-15
}

// Bytes are added as u16: `all` carries the odd byte on top of the even one, `odd` takes it off.
struct Bytes16 {
  __m256i all, odd;
};
static inline void add_bytes(Bytes16& acc, __m256i bytes) {
  acc.all = _mm256_add_epi16(acc.all, bytes);
  acc.odd = _mm256_add_epi16(acc.odd, _mm256_srli_epi16(bytes, 8));
}
static inline void flush(Bytes16& acc, Sums16& sums) {
  const __m256i even = _mm256_sub_epi16(acc.all, _mm256_slli_epi16(acc.odd, 8));
  const __m256i e32 = _mm256_add_epi32(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(even)),
                                       _mm256_cvtepu16_epi32(_mm256_extracti128_si256(even, 1)));
  const __m256i o32 =
      _mm256_add_epi32(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(acc.odd)),
                       _mm256_cvtepu16_epi32(_mm256_extracti128_si256(acc.odd, 1)));
  // e32 has vectors 0 2 .. 14, o32 has 1 3 .. 15.
  const __m256i a = _mm256_unpacklo_epi32(e32, o32);  // 0 1 2 3 | 8 9 10 11
  const __m256i b = _mm256_unpackhi_epi32(e32, o32);  // 4 5 6 7 | 12 13 14 15
  sums.low = _mm256_add_epi32(sums.low, _mm256_permute2x128_si256(a, b, 0x20));
  sums.high = _mm256_add_epi32(sums.high, _mm256_permute2x128_si256(a, b, 0x31));
  acc.all = acc.odd = _mm256_setzero_si256();
}

static inline Sums16 sums16(const uint8_t* packed, int64_t lines, const uint8_t* lut,
                            int32_t bias) {
  Sums16 sums{_mm256_set1_epi32(bias), _mm256_set1_epi32(bias)};
  Bytes16 acc{_mm256_setzero_si256(), _mm256_setzero_si256()};
  const __m256i nibble = _mm256_set1_epi8(0x0F);
  for (int64_t g = 0; g < lines; ++g, packed += 64, lut += 128) {
    __m256i x, y;
    transpose_line(packed, &x, &y);
    const __m256i* tables = (const __m256i*)lut;
    add_bytes(acc, _mm256_shuffle_epi8(_mm256_load_si256(tables), _mm256_and_si256(x, nibble)));
    add_bytes(acc, _mm256_shuffle_epi8(_mm256_load_si256(tables + 1), _mm256_and_si256(y, nibble)));
    x = _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble);
    y = _mm256_and_si256(_mm256_srli_epi16(y, 4), nibble);
    add_bytes(acc, _mm256_shuffle_epi8(_mm256_load_si256(tables + 2), x));
    add_bytes(acc, _mm256_shuffle_epi8(_mm256_load_si256(tables + 3), y));
    // A u16 lane takes 4 of a line's 8 sub-spaces: 64 lines of 255s are 65,280.
    if ((g & 63) == 63) flush(acc, sums);
  }
  flush(acc, sums);
  return sums;
}
static inline void store_sums(int32_t* out, Sums16 sums) {
  _mm256_storeu_si256((__m256i*)out, sums.low);
  _mm256_storeu_si256((__m256i*)(out + 8), sums.high);
}
static inline Sums16 load_sums(const int32_t* in) {
  return Sums16{_mm256_loadu_si256((const __m256i*)in),
                _mm256_loadu_si256((const __m256i*)(in + 8))};
}
static inline uint32_t mask_above(const Sums16& sums, int32_t threshold) {
  const __m256i t = _mm256_set1_epi32(threshold);
  const uint32_t low = _mm256_movemask_ps((__m256)_mm256_cmpgt_epi32(sums.low, t));
  const uint32_t high = _mm256_movemask_ps((__m256)_mm256_cmpgt_epi32(sums.high, t));
  return low | high << 8;
}
#include "filter_plain.inl"
#include "push_plain.inl"

static inline int32_t add_lanes(__m256i x) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1));
  return _mm_cvtsi128_si32(s);
}
static inline int32_t dot_bytes(const uint8_t* row, const int8_t* query, int64_t d) {
  __m256i acc = _mm256_setzero_si256();
  int64_t i = 0;
  for (; i + 16 <= d; i += 16) {
    const __m256i r = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)(row + i)));
    const __m256i q = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(query + i)));
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(r, q));
  }
  int32_t sum = add_lanes(acc);
  for (; i < d; ++i) sum += row[i] * query[i];
  return sum;
}
static inline void score_blocks(const uint8_t* blocks, int64_t nblock, int64_t quads,
                                const int8_t* query, int32_t correction, int32_t* out) {
  const __m256i start = _mm256_set1_epi32(-correction);
  for (int64_t b = 0; b < nblock; ++b, out += 16) {
    __m256i acc[4] = {};  // two partial sums for each of 4 centroids
    for (int64_t j = 0; j < quads; ++j, blocks += 64) {
      int32_t four;
      __builtin_memcpy(&four, query + 4 * j, 4);
      const __m256i q = _mm256_cvtepi8_epi16(_mm_set1_epi32(four));
#pragma GCC unroll 4
      for (int p = 0; p < 4; ++p) {
        const __m256i c = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)(blocks + 16 * p)));
        acc[p] = _mm256_add_epi32(acc[p], _mm256_madd_epi16(c, q));
      }
    }
    for (int p = 0; p < 4; p += 2) {
      // hadd joins the pairs: c0 c1 c4 c5 | c2 c3 c6 c7, then put in order.
      const __m256i sums =
          _mm256_permute4x64_epi64(_mm256_hadd_epi32(acc[p], acc[p + 1]), 0xD8);
      _mm256_storeu_si256((__m256i*)(out + 4 * p), _mm256_add_epi32(sums, start));
    }
  }
}

// The last three steps of a fold: eight lanes into one, in halves.
static inline float fold8(__m256 x) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

#define SOARDB_FOLDS "folds_avx2.inl"
#include "kernels_common.inl"
#include "primitives_plain_late.inl"

}  // namespace

extern const Kernels kAvx2;
const Kernels kAvx2 = make_table("avx2");

}  // namespace soardb
