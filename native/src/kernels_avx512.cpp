// AVX-512 with BW, DQ, VL, VNNI and VBMI (Ice Lake, Zen 4 and newer). Older AVX-512 machines run
// the AVX2 level.
#include <immintrin.h>

#include "soardb/kernels.hpp"

namespace soardb {
namespace {

constexpr int kLanes = 16;
constexpr int kRows = 12;  // 24 accumulators, 2 panel columns, the rest for broadcasts
using Sums16 = __m512i;

#define fma_part(a, b, c) \
  (FV) _mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c))
struct F16;
static inline F16 load_part(const float* x, int64_t count);

static inline void key_range(const int32_t* keys, int64_t n, int32_t* least, int32_t* most) {
  __m512i low = _mm512_set1_epi32(INT32_MAX), high = _mm512_set1_epi32(INT32_MIN);
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 m = n - i >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << (n - i)) - 1);
    const __m512i x = _mm512_maskz_loadu_epi32(m, keys + i);
    low = _mm512_mask_min_epi32(low, m, low, x);
    high = _mm512_mask_max_epi32(high, m, high, x);
  }
  *least = _mm512_reduce_min_epi32(low);
  *most = _mm512_reduce_max_epi32(high);
}

static inline int64_t count_at_least(const int32_t* keys, int64_t n, int32_t pivot) {
  const __m512i p = _mm512_set1_epi32(pivot);
  int64_t count = 0, i = 0;
  for (; i + 64 <= n; i += 64) {
    const uint64_t a = _mm512_cmpge_epi32_mask(_mm512_loadu_si512(keys + i), p);
    const uint64_t b = _mm512_cmpge_epi32_mask(_mm512_loadu_si512(keys + i + 16), p);
    const uint64_t c = _mm512_cmpge_epi32_mask(_mm512_loadu_si512(keys + i + 32), p);
    const uint64_t d = _mm512_cmpge_epi32_mask(_mm512_loadu_si512(keys + i + 48), p);
    count += __builtin_popcountll(a | b << 16 | c << 32 | d << 48);
  }
  for (; i < n; i += 16) {
    const __mmask16 m = n - i >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << (n - i)) - 1);
    count += __builtin_popcount(
        _mm512_mask_cmpge_epi32_mask(m, _mm512_maskz_loadu_epi32(m, keys + i), p));
  }
  return count;
}

// In place and stable: keys above the pivot, and the first `ties` of those equal to it.
static inline int64_t compress_largest(int32_t* keys, uint32_t* values, int64_t n, int32_t pivot,
                                       int64_t ties) {
  const __m512i p = _mm512_set1_epi32(pivot);
  int64_t kept = 0;
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 m = n - i >= 16 ? 0xFFFF : static_cast<__mmask16>((1u << (n - i)) - 1);
    const __m512i k = _mm512_maskz_loadu_epi32(m, keys + i);
    const __m512i v = _mm512_maskz_loadu_epi32(m, values + i);
    uint32_t equal = _mm512_mask_cmpeq_epi32_mask(m, k, p);
    const int have = __builtin_popcount(equal);
    if (have > ties) equal = _pdep_u32((1u << ties) - 1u, equal);
    ties -= have < ties ? have : ties;
    const __mmask16 take = static_cast<__mmask16>(_mm512_mask_cmpgt_epi32_mask(m, k, p) | equal);
    const int count = __builtin_popcount(take);
    const __mmask16 out = static_cast<__mmask16>((1u << count) - 1u);
    _mm512_mask_storeu_epi32(keys + kept, out, _mm512_maskz_compress_epi32(take, k));
    _mm512_mask_storeu_epi32(values + kept, out, _mm512_maskz_compress_epi32(take, v));
    kept += count;
  }
  return kept;
}

// Byte 4i + L looks up in table L of four: its index gets 16 L added.
static inline __m512i table_index(__m512i nibbles) {
  return _mm512_ternarylogic_epi32(nibbles, _mm512_set1_epi8(0x0F),
                                   _mm512_set1_epi32(0x30201000), 0xEA);  // (a & b) | c
}

static inline Sums16 sums16(const uint8_t* packed, int64_t lines, const uint8_t* lut,
                            int32_t bias) {
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i a = _mm512_set1_epi32(bias), b = _mm512_setzero_si512();
  for (int64_t g = 0; g < lines; ++g) {
    const __m512i c = _mm512_loadu_si512(packed + 64 * g);
    const __m512i low = _mm512_load_si512(lut + 128 * g);
    const __m512i high = _mm512_load_si512(lut + 128 * g + 64);
    a = _mm512_dpbusd_epi32(a, _mm512_permutexvar_epi8(table_index(c), low), ones);
    b = _mm512_dpbusd_epi32(
        b, _mm512_permutexvar_epi8(table_index(_mm512_srli_epi16(c, 4)), high), ones);
  }
  return _mm512_add_epi32(a, b);
}

constexpr bool kBranchlessPush = true;
constexpr bool kFixesLines = true;

// Both ahead are fetched meanwhile, line by line.
template <int kLines>
static inline __attribute__((always_inline)) void sums16_pair(
    const uint8_t* first, const uint8_t* second, int64_t some_lines, const uint8_t* lut,
    int32_t first_bias, int32_t second_bias, const uint8_t* first_ahead,
    const uint8_t* second_ahead, Sums16* out_first, Sums16* out_second) {
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i a = _mm512_set1_epi32(first_bias), b = _mm512_setzero_si512();
  __m512i c = _mm512_set1_epi32(second_bias), d = b;
  const auto add_line = [&](int64_t g) __attribute__((always_inline)) {
    __builtin_prefetch(first_ahead + 64 * g);
    __builtin_prefetch(second_ahead + 64 * g);
    const __m512i x = _mm512_loadu_si512(first + 64 * g);
    const __m512i y = _mm512_loadu_si512(second + 64 * g);
    const __m512i low = _mm512_load_si512(lut + 128 * g);
    const __m512i high = _mm512_load_si512(lut + 128 * g + 64);
    a = _mm512_dpbusd_epi32(a, _mm512_permutexvar_epi8(table_index(x), low), ones);
    c = _mm512_dpbusd_epi32(c, _mm512_permutexvar_epi8(table_index(y), low), ones);
    b = _mm512_dpbusd_epi32(
        b, _mm512_permutexvar_epi8(table_index(_mm512_srli_epi16(x, 4)), high), ones);
    d = _mm512_dpbusd_epi32(
        d, _mm512_permutexvar_epi8(table_index(_mm512_srli_epi16(y, 4)), high), ones);
  };
  if constexpr (kLines > 0) {
#pragma GCC unroll 16
    for (int64_t g = 0; g < kLines; ++g) add_line(g);
  } else {
    for (int64_t g = 0; g < some_lines; ++g) add_line(g);
  }
  *out_first = _mm512_add_epi32(a, b);
  *out_second = _mm512_add_epi32(c, d);
}

static inline void store_sums(int32_t* out, Sums16 sums) { _mm512_storeu_si512(out, sums); }
static inline Sums16 load_sums(const int32_t* in) { return _mm512_loadu_si512(in); }
static inline uint32_t mask_above(Sums16 sums, int32_t threshold) {
  return _mm512_cmpgt_epi32_mask(sums, _mm512_set1_epi32(threshold));
}
static inline int64_t push_some(Sums16 sums, uint32_t mask, uint32_t first, int32_t* keys,
                                uint32_t* values) {
  const __m512i iota =
      _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __mmask16 m = static_cast<__mmask16>(mask);
  const __m512i where = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int32_t>(first)), iota);
  _mm512_storeu_si512(keys, _mm512_maskz_compress_epi32(m, sums));
  _mm512_storeu_si512(values, _mm512_maskz_compress_epi32(m, where));
  return __builtin_popcount(mask);
}

#include "filter_plain.inl"
// Sixteen bits of the filter by one gather; a few are had sooner one by one.
static inline uint32_t allowed_lanes(const Filter& filter, const uint32_t* rows, uint32_t mask) {
  if (__builtin_popcount(mask) < 5 || filter.bytes < 4) return allowed_few(filter, rows, mask);
  const __mmask16 lanes = static_cast<__mmask16>(mask);
  const __m512i row = _mm512_loadu_si512(rows);
  // Four bytes are read where one is wanted, so not beyond four before the bitmap's end. A row
  // beyond the end is then 32 bits away or more, and a shift by so much leaves none.
  const int64_t most = int64_t{1} << 29, bytes = filter.bytes < most ? filter.bytes : most;
  const __m512i last = _mm512_set1_epi32(static_cast<int32_t>(bytes - 4));
  const __m512i first = _mm512_min_epu32(_mm512_srli_epi32(row, 3), last);
  const __m512i word =
      _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), lanes, first, filter.bits, 1);
  const __m512i bit = _mm512_sub_epi32(row, _mm512_slli_epi32(first, 3));
  return _mm512_mask_test_epi32_mask(lanes, word,
                                     _mm512_sllv_epi32(_mm512_set1_epi32(1), bit));
}

static inline int32_t dot_bytes(const uint8_t* row, const int8_t* query, int64_t d) {
  __m512i acc = _mm512_setzero_si512();
  int64_t i = 0;
  for (; i + 64 <= d; i += 64)
    acc = _mm512_dpbusd_epi32(acc, _mm512_loadu_si512(row + i), _mm512_loadu_si512(query + i));
  if (i < d) {
    const __mmask64 m = (1ull << (d - i)) - 1ull;
    acc = _mm512_dpbusd_epi32(acc, _mm512_maskz_loadu_epi8(m, row + i),
                              _mm512_maskz_loadu_epi8(m, query + i));
  }
  return _mm512_reduce_add_epi32(acc);
}

template <int N>
static inline void score_some(const uint8_t* blocks, int64_t quads, const int8_t* query,
                              int32_t correction, int32_t* out) {
  __m512i acc[N];
#pragma GCC unroll 8
  for (int b = 0; b < N; ++b) acc[b] = _mm512_set1_epi32(-correction);
  for (int64_t j = 0; j < quads; ++j) {
    int32_t four;
    __builtin_memcpy(&four, query + 4 * j, 4);
    const __m512i q = _mm512_set1_epi32(four);
#pragma GCC unroll 8
    for (int b = 0; b < N; ++b)
      acc[b] = _mm512_dpbusd_epi32(acc[b], _mm512_loadu_si512(blocks + (b * quads + j) * 64), q);
  }
#pragma GCC unroll 8
  for (int b = 0; b < N; ++b) _mm512_storeu_si512(out + 16 * b, acc[b]);
}
static inline void score_blocks(const uint8_t* blocks, int64_t nblock, int64_t quads,
                                const int8_t* query, int32_t correction, int32_t* out) {
  int64_t b = 0;
  for (; b + 4 <= nblock; b += 4)
    score_some<4>(blocks + b * quads * 64, quads, query, correction, out + 16 * b);
  for (; b < nblock; ++b)
    score_some<1>(blocks + b * quads * 64, quads, query, correction, out + 16 * b);
}

static inline F16 to_float(const int32_t* x);
static inline void sortable16(const float* x, int32_t* out);
static inline float from_sortable(int32_t key) {
  const int32_t bits = key ^ static_cast<int32_t>(static_cast<uint32_t>(key >> 31) >> 1);
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}
static inline int32_t round_to_int(double x) {
  return _mm_cvtsd_si32(_mm_set_sd(x));  // nearest, ties to even: the default mode
}
static inline void store_bytes(uint8_t* out, F16 x);

// The last three steps of a fold: eight lanes into one, in halves.
static inline float fold8(__m256 x) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

#define SOARDB_FOLDS "folds_avx512.inl"
#include "kernels_common.inl"

static inline F16 load_part(const float* x, int64_t count) {
  const __mmask16 m = static_cast<__mmask16>((1u << count) - 1u);
  return F16{{(FV)_mm512_maskz_loadu_ps(m, x)}};
}
static inline F16 to_float(const int32_t* x) {
  return F16{{(FV)_mm512_cvtepi32_ps(_mm512_loadu_si512(x))}};
}
static inline void sortable16(const float* x, int32_t* out) {
  const __m512 a = _mm512_add_ps(_mm512_loadu_ps(x), _mm512_setzero_ps());
  const __m512i bits = _mm512_castps_si512(a);
  const __m512i flip = _mm512_srli_epi32(_mm512_srai_epi32(bits, 31), 1);
  _mm512_storeu_si512(out, _mm512_xor_si512(bits, flip));
}
static inline void store_bytes(uint8_t* out, F16 x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                   _mm512_cvtepi32_epi8(_mm512_cvtps_epi32((__m512)x.v[0])));
}

}  // namespace

extern const Kernels kAvx512;
const Kernels kAvx512 = make_table("avx512");

}  // namespace soardb
