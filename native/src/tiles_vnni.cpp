// Tiles by VNNI: sixteen rows against a panel of sixteen queries in sixteen registers.
#include <immintrin.h>

#include "soardb/batch.hpp"

namespace soardb {
namespace {

constexpr int64_t kChunkBytes = 24 << 10;  // rows that stay in the first-level cache

// sums += four bytes of a row times four bytes of sixteen queries. Written out, since the compiler
// copies sixteen accumulators around where the intrinsic is used.
static inline __attribute__((always_inline)) void add(__m512i& sums, const uint8_t* row,
                                                      __m512i query) {
  int32_t four;
  __builtin_memcpy(&four, row, 4);
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(_mm512_set1_epi32(four)), "v"(query));
}
static inline __attribute__((always_inline)) void add_four(__m512i* sums, const uint8_t* row,
                                                           int64_t one, int64_t two, int64_t three,
                                                           __m512i query) {
  add(sums[0], row, query);
  add(sums[1], row + one, query);
  add(sums[2], row + two, query);
  add(sums[3], row + three, query);
}

template <typename Consume>
static void each_tile(const TileRows& rows, const TileQueries& x, const Consume& consume) {
  alignas(64) int32_t c[256];
  const int64_t blocks = kChunkBytes / (16 * x.width);
  const int64_t chunk = 16 * (blocks > 1 ? blocks : 1);
  for (int64_t begin = 0; begin < rows.n; begin += chunk) {
    const int64_t end = begin + chunk < rows.n ? begin + chunk : rows.n;
    for (int64_t panel = 0; panel < x.panels; ++panel) {
      const int8_t* queries = x.packed + panel * x.width * 16;
      const __m512i start = _mm512_loadu_si512(x.corrections + 16 * panel);
      for (int64_t first = begin; first < end; first += 16) {
        const uint8_t* block = rows.bytes + first * rows.stride;
        __m512i sums[16];
#pragma GCC unroll 16
        for (int r = 0; r < 16; ++r) sums[r] = start;
        const int64_t one = rows.stride, two = 2 * one, three = 3 * one;
        const uint8_t *p = block, *q = p + 4 * one, *u = q + 4 * one, *v = u + 4 * one;
        for (int64_t j = 0; j < x.width; j += 4, p += 4, q += 4, u += 4, v += 4) {
          const __m512i query = _mm512_load_si512(queries + 16 * j);
          add_four(sums, p, one, two, three, query);
          add_four(sums + 4, q, one, two, three, query);
          add_four(sums + 8, u, one, two, three, query);
          add_four(sums + 12, v, one, two, three, query);
        }
#pragma GCC unroll 16
        for (int r = 0; r < 16; ++r) _mm512_store_si512(c + 16 * r, sums[r]);
        consume(c, first, end - first < 16 ? end - first : 16, panel);
      }
    }
  }
}

#include "tiles_avx512.inl"

}  // namespace

extern const Tiles kTilesVnni;
const Tiles kTilesVnni{"vnni", scan, maxima};

}  // namespace soardb
