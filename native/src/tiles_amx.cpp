// Tiles by AMX: a block of rows is a tile as it lies in memory, only the queries are packed.
//
// Which registers hold what: rows up to 128 bytes wide leave room for two panels of queries, which
// stay while the rows stream; wider ones are multiplied 32 rows by 32 queries at a time. A tile is
// consumed while the next one is being multiplied. The tile registers are released before the
// caller goes on, as the system saves them with every switch otherwise.
#include <immintrin.h>

#include "soardb/batch.hpp"

namespace soardb {
namespace {

constexpr int64_t kChunkBytes = 32 << 10;  // rows that stay in the first-level cache

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Tiles 0, 1: products; 2, 3: a block of rows; 4 to 7: K times P tiles of queries, resident.
template <int K, int P>
static inline __attribute__((always_inline)) void load_queries(const int8_t* queries) {
  _tile_loadd(4, queries, 64);
  if constexpr (K == 2) _tile_loadd(5, queries + 1024, 64);
  if constexpr (P == 2) {
    _tile_loadd(6, queries + K * 1024, 64);
    if constexpr (K == 2) _tile_loadd(7, queries + 3 * 1024, 64);
  }
}
template <int K, int P>
static inline __attribute__((always_inline)) void multiply_resident(const uint8_t* block,
                                                                    int64_t stride,
                                                                    const int32_t* corrections,
                                                                    int32_t* c) {
  _tile_loadd(0, corrections, 0);
  if constexpr (P == 2) _tile_loadd(1, corrections + 16, 0);
  _tile_loadd(2, block, stride);
  if constexpr (K == 2) _tile_loadd(3, block + 64, stride);
  _tile_dpbusd(0, 2, 4);
  if constexpr (P == 2) _tile_dpbusd(1, 2, 6);
  if constexpr (K == 2) _tile_dpbusd(0, 3, 5);
  if constexpr (K == 2 && P == 2) _tile_dpbusd(1, 3, 7);
  _tile_stored(0, c, 64);
  if constexpr (P == 2) _tile_stored(1, c + 256, 64);
}

// Tiles 0 to 3: products of B blocks and P panels; 4, 5: rows; 6, 7: queries.
template <int B, int P>
static inline __attribute__((always_inline)) void multiply(const uint8_t* block, int64_t stride,
                                                           const int8_t* queries, int64_t width,
                                                           const int32_t* corrections, int32_t* c) {
  _tile_loadd(0, corrections, 0);
  if constexpr (P == 2) _tile_loadd(1, corrections + 16, 0);
  if constexpr (B == 2) _tile_loadd(2, corrections, 0);
  if constexpr (B == 2 && P == 2) _tile_loadd(3, corrections + 16, 0);
  for (int64_t j = 0; j < width; j += 64) {
    _tile_loadd(4, block + j, stride);
    _tile_loadd(6, queries + 16 * j, 64);
    _tile_dpbusd(0, 4, 6);
    if constexpr (P == 2) {
      _tile_loadd(7, queries + 16 * (width + j), 64);
      _tile_dpbusd(1, 4, 7);
    }
    if constexpr (B == 2) {
      _tile_loadd(5, block + 16 * stride + j, stride);
      _tile_dpbusd(2, 5, 6);
      if constexpr (P == 2) _tile_dpbusd(3, 5, 7);
    }
  }
  _tile_stored(0, c, 64);
  if constexpr (P == 2) _tile_stored(1, c + 256, 64);
  if constexpr (B == 2) _tile_stored(2, c + 512, 64);
  if constexpr (B == 2 && P == 2) _tile_stored(3, c + 768, 64);
}

// A multiplied piece that waits to be consumed: the blocks from row `first` on, P panels each.
struct Piece {
  const int32_t* c = nullptr;
  int64_t first = 0, end = 0;
};
template <int P, typename Consume>
static inline __attribute__((always_inline)) void consume_piece(const Piece& piece, int64_t panel,
                                                                const Consume& consume) {
  const int32_t* c = piece.c;
  for (int64_t i = piece.first; i < piece.end; i += 16, c += 512) {
    const int64_t count = piece.end - i < 16 ? piece.end - i : 16;
    consume(c, i, count, panel);
    if constexpr (P == 2) consume(c + 256, i, count, panel + 1);
  }
}

// Rows [begin, end) against panels [panel, panel + P). K: 64-byte steps of a row, 0 for many.
template <int K, int P, typename Consume>
static void some_panels(const TileRows& rows, const TileQueries& x, int64_t begin, int64_t end,
                        int64_t panel, const Consume& consume) {
  alignas(64) int32_t room[2][1024];
  const int8_t* queries = x.packed + panel * x.width * 16;
  const int32_t* corrections = x.corrections + 16 * panel;
  if constexpr (K != 0) load_queries<K, P>(queries);
  Piece last;
  int turn = 0;
  for (int64_t first = begin; first < end; turn ^= 1) {
    const uint8_t* block = rows.bytes + first * rows.stride;
    Piece piece{room[turn], first, 0};
    if constexpr (K != 0) {
      multiply_resident<K, P>(block, rows.stride, corrections, room[turn]);
      piece.end = first + 16;
    } else if (end - first > 16) {
      if constexpr (P == 2) {
        multiply<2, 2>(block, rows.stride, queries, x.width, corrections, room[turn]);
      } else {
        multiply<1, 1>(block, rows.stride, queries, x.width, corrections, room[turn]);
        multiply<1, 1>(block + 16 * rows.stride, rows.stride, queries, x.width, corrections,
                       room[turn] + 512);
      }
      piece.end = first + 32;
    } else {
      multiply<1, P>(block, rows.stride, queries, x.width, corrections, room[turn]);
      piece.end = first + 16;
    }
    first = piece.end;
    if (piece.end > end) piece.end = end;
    if (last.c) consume_piece<P>(last, panel, consume);
    last = piece;
  }
  if (last.c) consume_piece<P>(last, panel, consume);
}

template <int K, typename Consume>
static void every_panel(const TileRows& rows, const TileQueries& x, const Consume& consume) {
  const int64_t blocks = kChunkBytes / (32 * x.width);
  const int64_t chunk = 32 * (blocks > 1 ? blocks : 1);
  for (int64_t begin = 0; begin < rows.n; begin += chunk) {
    const int64_t end = begin + chunk < rows.n ? begin + chunk : rows.n;
    int64_t panel = 0;
    for (; panel + 2 <= x.panels; panel += 2)
      some_panels<K, 2>(rows, x, begin, end, panel, consume);
    if (panel < x.panels) some_panels<K, 1>(rows, x, begin, end, panel, consume);
  }
}

template <typename Consume>
static void each_tile(const TileRows& rows, const TileQueries& x, const Consume& consume) {
  const TileConfig config;
  _tile_loadconfig(&config);
  if (x.width == 64)
    every_panel<1>(rows, x, consume);
  else if (x.width == 128)
    every_panel<2>(rows, x, consume);
  else
    every_panel<0>(rows, x, consume);
  _tile_release();
}

#include "tiles_avx512.inl"

}  // namespace

extern const Tiles kTilesAmx;
const Tiles kTilesAmx{"amx", scan, maxima};

}  // namespace soardb
