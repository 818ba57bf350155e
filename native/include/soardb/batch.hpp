// Many queries against all 8-bit rows at once: what batch.cpp asks of an instruction set.
//
//   module.cpp -> batch.cpp -> [batch.hpp] <- tiles_{scalar,avx2,vnni,amx}.cpp
//
// Rows come in blocks of 16, queries in panels of 16: a tile is the 16 x 16 integer products of a
// block and a panel. soardb/kernels/reference.py, topk_u8 and rescore, says what comes out.
#pragma once

#include <cstdint>

#include "soardb/kernels.hpp"

namespace soardb {

// A stretch of rows. Blocks are read whole and `width` bytes wide, so the memory behind the last
// row must be readable that far; a bias is read in blocks too.
struct TileRows {
  const uint8_t* bytes;
  int64_t n, stride;
  const uint32_t* numbers;  // of each row; null where they rise by one from `first`
  uint32_t first;
  const float* bias;        // null but under l2
};

// A group of queries and the pools of their best rows. Arrays hold 16 * panels queries; the last
// few may be padding, whose thresholds nothing exceeds.
struct TileQueries {
  int64_t panels, width;       // width: bytes of a row that are multiplied, a multiple of 64
  const int8_t* packed;        // [panel][width / 4][16][4], 64-byte aligned
  const int32_t* corrections;  // -128 * sum of the query's bytes
  const float* steps;          // under l2: key = sortable(product * step - bias), else the product
  int64_t keep, capacity;      // a pool holds up to `capacity` pairs: at least keep + 32
  int32_t* thresholds;         // only keys above it are pushed
  int64_t* sizes;
  int32_t* keys;
  uint32_t* rows;
};

struct Tiles {
  const char* name;
  // Pushes every row's key into each query's pool, in order of row.
  void (*scan)(const TileRows& rows, const TileQueries& queries, const Kernels& k);
  // The highest key of each block of rows: out (ceil(n / 16), 16 * panels).
  void (*maxima)(const TileRows& rows, const TileQueries& queries, int32_t* out);
};

extern const Tiles kTilesScalar;
#ifdef SOARDB_X86
extern const Tiles kTilesAvx2;
extern const Tiles kTilesVnni;
#endif
#ifdef SOARDB_AMX
extern const Tiles kTilesAmx;
#endif
const Tiles& tiles(const Kernels& k);  // those of a level

// All 8-bit rows of one segment.
struct ByteRows {
  const uint8_t* bytes;
  int64_t n, stride;
  const float* bias;  // null but under l2
  int64_t first;      // the number of row 0
};

// keys (nq, keep) and rows (nq, keep), of which counts (nq,) are filled. filter may be null.
void topk_u8(const Kernels& k, const ByteRows& rows, const int8_t* codes, int64_t nq, int64_t d,
             const float* steps, int64_t keep, const Filter* filter, int threads, int32_t* keys,
             uint32_t* found, int64_t* counts);

void rescore(const Kernels& k, const Kept& vectors, const float* queries, int64_t nq,
             int metric, const uint32_t* rows, const double* bounds, int64_t room,
             const int64_t* counts, const double* rest, int64_t want, int threads, float* scores,
             int64_t* out, uint8_t* proven);

// The largest |x - stored x|, |stored bytes| and |x| of n centred vectors: out[3].
void store_error(const float* vectors, int64_t n, int64_t d, const float* mean,
                 const uint8_t* bytes, int64_t stride, const float* scale, const float* offset,
                 int threads, double* out);

}  // namespace soardb
