// The kernels' face: plain structs, one table of function pointers per instruction set.
//
//   module.cpp -> dispatch.cpp, lists.cpp -> [kernels.hpp] <- kernels_{scalar,avx2,avx512,neon}.cpp
//
// soardb/kernels/reference.py says what each function computes; shapes and names are the same.
// Pointers are borrowed. Scratch memory is the caller's: nothing behind this table allocates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <type_traits>

#include "soardb/stages.hpp"

namespace soardb {

enum Metric : int { kDot = 0, kCosine = 1, kL2 = 2 };
enum Status : int { kOk = 0, kNotFinite = 1, kZeroVector = 2 };

constexpr int64_t kBlock = 16;       // vectors in a block of codes or of 8-bit centroids
constexpr int64_t kLine = 64;        // bytes in a line of packed codes
constexpr int64_t kPanel = 32;       // vectors in a panel of the float32 matrix kernels
constexpr int64_t kQueue = 512;      // blocks of codes that are queued for one run of the scan
constexpr int64_t kAhead = 24;       // blocks that the scan fetches ahead; even
constexpr int64_t kSteps = 64;       // of score, in which the lists to visit are put in order
constexpr int64_t kFirstLook = 8;     // lists that every search visits

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// Vectors as an index keeps them for exact scores; soardb/kernels/layout.py: IvfArrays.vectors.
// Rows [0, n) are the base's and those that follow are the delta's, of which there may be none.
enum Precision : int { kFloat32 = 0, kBfloat16 = 1, kInt8 = 2 };
struct Kept {
  int precision = kFloat32;
  const void* base = nullptr;
  const void* delta = nullptr;         // null where there is none
  int64_t n = 0, d = 0, step = 0;      // step: elements of a row
  const float* scale = nullptr;        // (d,) of bytes: offset + scale * (byte - 128)
  const float* offset = nullptr;       // (d,)
};

// soardb/kernels/layout.py: IvfArrays.
struct Ivf {
  int metric = 0;
  int64_t d = 0, nlist = 0, nslot = 0, ncell = 0, m = 0, width = 0, stride = 0;
  int64_t n = 0, ncode = 0;            // rows and places for codes of the base; the delta's follow
  bool is_spilled = false;
  float spread = 0;                    // standard deviation of a residual's component
  Kept vectors;
  const int64_t* ids = nullptr;
  const float* mean = nullptr;
  const float* centroid_bias = nullptr;
  const uint8_t* centroid_codes = nullptr;
  const float* centroid_scale = nullptr;
  const float* centroid_offset = nullptr;
  const int32_t* slot_list = nullptr;
  const uint8_t* cell_codes = nullptr;
  const float* cell_bias = nullptr;
  const int32_t* cell_start = nullptr;
  const int64_t* list_start = nullptr;
  const int32_t* list_count = nullptr;
  const uint8_t* codes = nullptr;
  const uint32_t* code_rows = nullptr;
  const float* codebook = nullptr;
  const int32_t* block_dims = nullptr;
  const uint8_t* store = nullptr;
  const float* store_scale = nullptr;
  const float* store_bias = nullptr;
  int64_t nturned = 0;                 // rows of the rotation, padded to whole blocks; or 0
  const uint8_t* rotation_codes = nullptr;
  const float* rotation_scale = nullptr;
  // The delta; delta_start is null where there is none.
  const int64_t* delta_ids = nullptr;
  const uint8_t* delta_store = nullptr;
  const float* delta_store_bias = nullptr;
  const int64_t* delta_start = nullptr;
  const int32_t* delta_count = nullptr;
  const uint8_t* delta_codes = nullptr;
  const uint32_t* delta_code_rows = nullptr;
};

// soardb/kernels/layout.py: SearchPlan.
struct Plan {
  int64_t k = 0, nprobe = 0, cellprobe = 0, collect = 0, rerank = 0, refine = 0;
  float stop = __builtin_inff();
};

// The rows that a search may return: row r where bit r is set, lowest bit of a byte first. Rows
// beyond the bitmap's end may not.
struct Filter {
  const uint8_t* bits = nullptr;
  int64_t bytes = 0;
};

// One thread's memory for one search; sizes are set by dispatch.cpp (Scratch::fit).
struct Scratch {
  float *query, *centred, *coded;      // room for the extended query, padded
  int8_t *centroid_query, *store_query, *coded_query;
  float* slot_scores;                  // scores of the slots that were looked at
  int32_t *slot_keys, *slot_ids;       // the best of them; capacity `nslots`
  int32_t* order;                      // the lists to visit
  float* order_scores;
  int32_t* steps;                      // of score, of each list to visit
  float* tables;                       // (m, 16)
  float* lows;                         // (m,)
  uint8_t* lut;                        // (m, 16), 64-byte aligned
  const uint8_t** block_codes;         // the queue: kQueue + kAhead + 2 blocks
  int32_t* block_bias;
  uint32_t *block_first, *block_lanes;  // place of the first code; which of the sixteen count
  int32_t *keys, *sort_keys;           // capacity `pool`
  uint32_t *slots, *rows;              // capacity `pool`
  uint32_t *hash_rows, *hash_places;   // capacity `hash_size`, a power of two
  float* rough;                        // capacity `pool`
  int64_t pool, hash_size, nslots;
};

// Centroids as vectors are assigned to them (build.inl); made by assigner.cpp. nblock is even, and
// columns from nlist on have half_norms of +inf.
struct Places {
  int64_t nlist = 0, nblock = 0, d = 0;
  int64_t quads = 0;                   // fours of bytes in a code
  const float* centroids = nullptr;    // (nlist, d)
  const float* raw_half_norms = nullptr;  // (nlist,) |c|^2 / 2
  const float* mean = nullptr;         // (d,) of the centroids
  const uint8_t* codes = nullptr;      // (nblock, quads, 16, 4): (c - mean) / scale + 128
  const float* scale = nullptr;        // (nblock * 16,)
  const float* half_norms = nullptr;   // (nblock * 16,) |c - mean|^2 / 2
  const float* spread = nullptr;       // (nblock * 16,) |c - mean|
  float widest = 0, coarsest = 0;      // the biggest spread and scale
};

constexpr int64_t kTileRows = 32;      // vectors in a group
constexpr int64_t kTileColumns = 128;  // centroids scored at once

// dots[r * kTileColumns + c] = sum of codes[r] * (blocks[c] - 128) of at most kTileRows rows of
// 4 * quads signed bytes and nblock (even) blocks of centroids. Rows that are missing are read.
using TileProducts = void (*)(const int8_t* codes, int64_t rows, int64_t quads,
                              const uint8_t* blocks, int64_t nblock, int32_t* dots);

// One query of a batch that goes list by list; list_major.inl.
struct ListQuery {
  float *query, *centred;   // (d,)
  uint8_t* lut;             // (m, 16), 64-byte aligned
  int32_t *lists, *biases;  // (nprobe,), in the order of a visit
  int32_t* keys;            // its pool
  uint32_t* slots;
  int64_t nlists, size, scanned;
  int32_t threshold;
  bool open;
};

struct Kernels {
  const char* name;

  void (*lut16_sums)(const uint8_t* packed, int64_t n, int64_t m, const uint8_t* lut, int32_t* out);
  // Keeps the `keep` biggest in keys/positions (room: pool_capacity(keep)); returns how many.
  int64_t (*lut16_topk)(const uint8_t* packed, int64_t n, int64_t m, const uint8_t* lut,
                        int32_t bias, int64_t keep, int64_t capacity, int32_t* keys,
                        uint32_t* positions);
  void (*dot_u8)(const uint8_t* rows, int64_t n, int64_t stride, const uint32_t* chosen,
                 const int8_t* query, int64_t d, int32_t* out);
  void (*score_blocks_u8)(const uint8_t* blocks, int64_t nblock, int64_t quads,
                          const int8_t* query, int32_t* out);
  void (*score_f32)(const float* vectors, int64_t n, int64_t d, const uint32_t* chosen,
                    const float* query, int metric, float* out);
  // Chosen rows, each opened to float32 first; the same sums as score_f32.
  void (*score_kept)(const Kept& vectors, int64_t n, const uint32_t* chosen, const float* query,
                     int metric, float* out);
  // One query's `keep` best of rows [0, n), unsorted; returns how many.
  int64_t (*exact_topk_row)(const float* vectors, int64_t n, int64_t d, const float* query,
                            int metric, int64_t keep, int64_t capacity, int32_t* keys,
                            uint32_t* rows);
  // Queries [0, nq) against one panel-packed block of rows; pushes into per-query pools.
  void (*exact_topk_block)(const float* panels, int64_t nrow, int64_t first_row, int64_t d,
                           const float* queries, int64_t nq, int metric, int64_t keep,
                           int64_t capacity, int32_t* keys, uint32_t* rows, int64_t* counts,
                           int32_t* thresholds);
  int64_t (*keep_largest)(int32_t* keys, uint32_t* values, int64_t n, int64_t keep,
                          int32_t* threshold);
  void (*assign)(const Places& places, TileProducts tiles, const float* vectors, int64_t n,
                 int8_t* scratch, int32_t* out, float* scores);
  void (*spill_assign)(const Places& places, TileProducts tiles, const float* vectors,
                       const float* directions, int64_t n, const int32_t* primary,
                       float soar_lambda, bool include_primary, int8_t* scratch, int32_t* out);
  void (*encode)(const float* residuals, const float* directions, const float* eta, int64_t n,
                 int64_t d, const float* codebook, int64_t m, int64_t width,
                 const int32_t* block_dims, float* scratch, uint8_t* out);
  // topk.inl, called by topk.cpp.
  void (*bucket_scores)(const float* scores, int64_t n, int64_t count, int64_t keep, float* values,
                        int32_t* rows);
  int64_t (*select_scores)(const float* scores, int64_t n, int64_t first, int64_t keep,
                           int64_t capacity, int32_t* keys, uint32_t* rows, int64_t size,
                           int32_t* threshold);
  void (*quantized_scores)(const uint8_t* codes, int64_t bits, int64_t nblock, int64_t units,
                           const int8_t* query, const float* scale, int32_t* products, float* out);
  // filter may be null; *scanned is how many codes the visited lists hold, before the filter.
  int (*ivf_search)(const Ivf& index, const Plan& plan, const Filter* filter, const float* query,
                    Scratch& scratch, float* scores, int64_t* ids, int64_t* scanned);
  int (*prepare_lists)(const Ivf& index, const Plan& plan, const float* query, Scratch& scratch,
                       ListQuery& out);
  void (*scan_piece)(const Ivf& index, const Plan& plan, const Filter* filter, ListQuery& query,
                     int32_t list, int32_t bias, int64_t capacity, bool is_delta, int64_t from,
                     int64_t to, Scratch& scratch);
  void (*finish_lists)(const Ivf& index, const Plan& plan, ListQuery& query, Scratch& scratch,
                       float* scores, int64_t* ids);
};

// Room that a pool needs beyond what it keeps, so that the scan may push before it selects; and how
// much of it the scan uses.
constexpr int64_t pool_capacity(int64_t keep) { return 2 * keep + 512; }
constexpr int64_t kPoolSlack = 128;

extern const Kernels kScalar;
#ifdef SOARDB_X86
extern const Kernels kAvx2;
extern const Kernels kAvx512;
#endif
#ifdef SOARDB_AMX
void amx_products(const int8_t* codes, int64_t rows, int64_t quads, const uint8_t* blocks,
                  int64_t nblock, int32_t* dots);
#endif
#ifdef SOARDB_NEON
extern const Kernels kNeon;
#endif

// dispatch.cpp
const Kernels& kernels();                   // the level in use
bool has_level(const char* name);
bool use_level(const char* name);           // false: unknown, or not on this CPU
const char* cpu_features();                 // space separated, for `soardb info`

TileProducts tile_products(const Kernels& k);  // null where the level has no tiles

// 0, or query * 4 + Status of the first bad query, or -1 when some query found fewer than k rows.
// filter and scanned (nq,) may be null.
int64_t ivf_search(const Kernels& k, const Ivf& index, const Plan& plan, const float* queries,
                   int64_t nq, int threads, float* scores, int64_t* ids,
                   const Filter* filter = nullptr, int64_t* scanned = nullptr);
// list_major.cpp: how many queries of a batch should go through the lists together, 0 for none; and
// that, with status (nq,) and, where it is not null, scanned (nq,).
int64_t list_major_share(const Ivf& index, const Plan& plan, int64_t nq, int threads);
void search_list_major(const Kernels& k, const Ivf& index, const Plan& plan, const Filter* filter,
                       const float* queries, int64_t nq, Scratch& scratch, float* scores,
                       int64_t* ids, uint8_t* status, int64_t* scanned);
void exact_topk(const Kernels& k, const float* vectors, int64_t n, int64_t d, const float* queries,
                int64_t nq, int metric, int64_t want, int threads, float* scores, int64_t* rows);
void encode(const Kernels& k, const float* residuals, const float* directions, const float* eta,
            int64_t n, int64_t d, const float* codebook, int64_t m, int64_t width,
            const int32_t* block_dims, int threads, uint8_t* out);

// Columns of kPanel vectors side by side: [panel][dim][kPanel]; the last one is padded with zeros.
void pack_panels(const float* vectors, int64_t n, int64_t d, float* panels);

// Growable lists of codes in an arena of nblock blocks; soardb/index/lists.py.
struct Lists {
  int64_t* start;
  int32_t* count;
  int64_t* room;
  uint8_t* codes;
  uint32_t* rows;
  int64_t nblock, m;
};
// lists.cpp: appends n (list, row, code) triples until the arena is full; returns how many, and in
// *used the blocks of the arena that are taken.
int64_t append_codes(const Lists& lists, int64_t n, const int32_t* parts, const uint32_t* rows,
                     const uint8_t* codes, int64_t* used);

// Calls body(begin, end) over [0, n) in pieces of `grain`, on the calling thread and threads - 1
// of its own, which end before it returns. An exception of a piece is thrown again here.
void parallel(int64_t n, int64_t grain, int threads,
              const std::function<void(int64_t, int64_t)>& body);

}  // namespace soardb
