// Tiles by VNNI: sixteen rows against a panel of sixteen queries in sixteen registers.
#include <immintrin.h>

#include "soardb/batch.hpp"

namespace soardb {
namespace {

constexpr int64_t kChunkBytes = 24 << 10;  // rows that stay in the first-level cache

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
        for (int64_t j = 0; j < x.width; j += 4) {
          const __m512i query = _mm512_load_si512(queries + 16 * j);
#pragma GCC unroll 16
          for (int r = 0; r < 16; ++r) {
            int32_t four;
            __builtin_memcpy(&four, block + r * rows.stride + j, 4);
            sums[r] = _mm512_dpbusd_epi32(sums[r], _mm512_set1_epi32(four), query);
          }
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
