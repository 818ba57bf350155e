// Products of bytes by the CPU's matrix tiles (AMX, Sapphire Rapids and newer, Linux).
//
//   assigner.cpp, dispatch.cpp -> [assign_amx.cpp]
//
// The same integers as score_blocks gives at any level, 32 x 32 of them at a time: four sums, two
// tiles of rows, two of centroids. A block of centroids is a tile of the right-hand side as it lies.
#include <immintrin.h>

#include "soardb/kernels.hpp"

namespace soardb {
namespace {

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
};

}  // namespace

void amx_products(const int8_t* codes, int64_t rows, int64_t quads, const uint8_t* blocks,
                  int64_t nblock, int32_t* dots) {
  const int64_t steps = ceil_div(quads, 16), step = quads / steps, stride = 4 * quads;
  TileConfig config;
  for (int t = 0; t < 8; ++t) {
    const bool is_left = t == 4 || t == 5, is_right = t >= 6;
    config.bytes[t] = static_cast<uint16_t>(is_left ? 4 * step : 64);
    config.rows[t] = static_cast<uint8_t>(is_right ? step : 16);
  }
  _tile_loadconfig(&config);
  // What the offset of the centroids' bytes adds to a row is taken off at the start.
  alignas(64) int32_t start[kTileRows][16];
  for (int64_t r = 0; r < kTileRows; ++r) {
    int32_t sum = 0;
    for (int64_t i = 0; i < stride; ++i) sum += codes[r * stride + i];
    for (int c = 0; c < 16; ++c) start[r][c] = -128 * sum;
  }
  const int8_t* lower = codes + 16 * stride;
  constexpr int64_t row_bytes = kTileColumns * sizeof(int32_t);
  for (int64_t b = 0; b < nblock; b += 2) {
    const uint8_t* left = blocks + b * quads * kLine;
    const uint8_t* right = left + quads * kLine;
    _tile_loadd(0, start[0], 64);
    _tile_loadd(1, start[0], 64);
    _tile_loadd(2, start[16], 64);
    _tile_loadd(3, start[16], 64);
    for (int64_t s = 0; s < steps; ++s) {
      _tile_loadd(4, codes + s * 4 * step, stride);
      _tile_loadd(5, lower + s * 4 * step, stride);
      _tile_loadd(6, left + s * step * kLine, kLine);
      _tile_loadd(7, right + s * step * kLine, kLine);
      _tile_dpbsud(0, 4, 6);
      _tile_dpbsud(1, 4, 7);
      _tile_dpbsud(2, 5, 6);
      _tile_dpbsud(3, 5, 7);
    }
    int32_t* out = dots + b * kBlock;
    _tile_stored(0, out, row_bytes);
    _tile_stored(1, out + kBlock, row_bytes);
    if (rows > 16) {
      _tile_stored(2, out + 16 * kTileColumns, row_bytes);
      _tile_stored(3, out + 16 * kTileColumns + kBlock, row_bytes);
    }
  }
  _tile_release();
}

}  // namespace soardb
