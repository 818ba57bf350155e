// The kernels written once over a handful of primitives; each instruction set includes this file
// inside an anonymous namespace, so no template or inline function of it can leak into another
// object file and carry its instructions to an older CPU.
//
//   kernels_<isa>.cpp: kLanes, kRows, fma, sums16, mask_above, push_above, dot_bytes, ... -> [this]
//
// What each function computes, and in which order it adds, is laid down in
// soardb/kernels/reference.py. std:: templates are avoided here for the reason above.

typedef float FV __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef int32_t IV __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
constexpr int kParts = 16 / kLanes;

// Sixteen floats in however many registers that takes.
struct F16 {
  FV v[kParts];
};
struct I16 {
  IV v[kParts];
};

#define SOARDB_PARTS _Pragma("GCC unroll 16") for (int p = 0; p < kParts; ++p)
#define SOARDB_INLINE static inline __attribute__((always_inline))

SOARDB_INLINE F16 set16(float x) {
  F16 r;
  SOARDB_PARTS r.v[p] = FV{} + x;
  return r;
}
SOARDB_INLINE F16 load16(const float* x) {
  F16 r;
  SOARDB_PARTS r.v[p] = *reinterpret_cast<const FV*>(x + p * kLanes);
  return r;
}
SOARDB_INLINE void store16(float* x, F16 a) {
  SOARDB_PARTS *reinterpret_cast<FV*>(x + p * kLanes) = a.v[p];
}
SOARDB_INLINE F16 operator+(F16 a, F16 b) {
  SOARDB_PARTS a.v[p] += b.v[p];
  return a;
}
SOARDB_INLINE F16 operator-(F16 a, F16 b) {
  SOARDB_PARTS a.v[p] -= b.v[p];
  return a;
}
SOARDB_INLINE F16 operator*(F16 a, F16 b) {
  SOARDB_PARTS a.v[p] *= b.v[p];
  return a;
}
SOARDB_INLINE F16 fma16(F16 a, F16 b, F16 c) {
  SOARDB_PARTS c.v[p] = fma_part(a.v[p], b.v[p], c.v[p]);
  return c;
}
SOARDB_INLINE F16 max16(F16 a, F16 b) {
  SOARDB_PARTS a.v[p] = a.v[p] > b.v[p] ? a.v[p] : b.v[p];
  return a;
}
SOARDB_INLINE F16 abs16(F16 a) {
  SOARDB_PARTS a.v[p] = a.v[p] < 0.0f ? -a.v[p] : a.v[p];
  return a;
}
// Round half to even, for |x| < 2^22.
SOARDB_INLINE F16 round16(F16 a) { return (a + set16(12582912.0f)) - set16(12582912.0f); }

#include SOARDB_FOLDS

// The shared order of a float32 product's lanes: reference.py, fold_lanes.
template <typename Term>
SOARDB_INLINE float fold_lanes(int64_t d, const Term& term) {
  F16 acc[4] = {set16(0), set16(0), set16(0), set16(0)};
  int64_t i = 0;
  for (; i + 64 <= d; i += 64) {
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) acc[q] = acc[q] + term(i + 16 * q, 16);
  }
  for (int q = 0; i < d; i += 16, ++q) acc[q] = acc[q] + term(i, d - i < 16 ? d - i : 16);
  return fold16((acc[0] + acc[1]) + (acc[2] + acc[3]));
}

SOARDB_INLINE F16 load_some(const float* x, int64_t count) {
  return count == 16 ? load16(x) : load_part(x, count);
}

// A row in each form that vectors are kept in (kernels.hpp: Kept), sixteen floats of it at a time.
// What is beyond the row's end counts as zero.
typedef uint16_t HalfParts __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));
typedef uint8_t ByteParts __attribute__((vector_size(kLanes), aligned(1), may_alias));

struct FloatRow {
  const float* x;
};
struct Bfloat16Row {
  const uint16_t* x;
};
struct ByteRow {
  const uint8_t* x;
  const float *scale, *offset;
};
SOARDB_INLINE F16 open16(const FloatRow& row, int64_t i, int64_t count) {
  return load_some(row.x + i, count);
}
SOARDB_INLINE F16 open16(const Bfloat16Row& row, int64_t i, int64_t count) {
  const uint16_t* x = row.x + i;
  uint16_t part[16] = {};
  if (count < 16) {
    for (int64_t j = 0; j < count; ++j) part[j] = x[j];
    x = part;
  }
  F16 r;
  SOARDB_PARTS r.v[p] = (FV)(__builtin_convertvector(
                                 *reinterpret_cast<const HalfParts*>(x + p * kLanes), IV)
                             << 16);
  return r;
}
SOARDB_INLINE F16 open16(const ByteRow& row, int64_t i, int64_t count) {
  const uint8_t* x = row.x + i;
  uint8_t part[16] = {};
  if (count < 16) {
    for (int64_t j = 0; j < count; ++j) part[j] = x[j];
    x = part;
  }
  F16 r;
  SOARDB_PARTS r.v[p] = __builtin_convertvector(
      __builtin_convertvector(*reinterpret_cast<const ByteParts*>(x + p * kLanes), IV) - 128, FV);
  return load_some(row.offset + i, count) + load_some(row.scale + i, count) * r;
}

template <typename Row>
SOARDB_INLINE float row_dot(const Row& row, const float* b, int64_t d) {
  return fold_lanes(
      d, [=](int64_t i, int64_t c) { return open16(row, i, c) * load_some(b + i, c); });
}
template <typename Row>
SOARDB_INLINE float row_square_distance(const Row& row, const float* b, int64_t d) {
  return fold_lanes(d, [=](int64_t i, int64_t c) {
    const F16 difference = open16(row, i, c) - load_some(b + i, c);
    return difference * difference;
  });
}
template <typename Row>
SOARDB_INLINE float row_score(const Row& row, const float* query, int64_t d, int metric) {
  if (metric == kL2) return -row_square_distance(row, query, d);
  const float dot = row_dot(row, query, d);
  if (metric != kCosine || std::is_same_v<Row, FloatRow>) return dot;
  // A rounded vector is not quite of unit length.
  const float squared = fold_lanes(d, [=](int64_t i, int64_t c) {
    const F16 x = open16(row, i, c);
    return x * x;
  });
  return squared > 0 ? dot / __builtin_sqrtf(squared) : dot;
}
SOARDB_INLINE float lane_dot(const float* a, const float* b, int64_t d) {
  return row_dot(FloatRow{a}, b, d);
}
SOARDB_INLINE float lane_square_distance(const float* a, const float* b, int64_t d) {
  return row_square_distance(FloatRow{a}, b, d);
}
SOARDB_INLINE float exact_score(const float* row, const float* query, int64_t d, int metric) {
  return row_score(FloatRow{row}, query, d, metric);
}

// A float's bits as an integer that sorts the same way. -0 and +0 are made one.
SOARDB_INLINE int32_t sortable(float x) {
  x += 0.0f;
  int32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return bits ^ static_cast<int32_t>(static_cast<uint32_t>(bits >> 31) >> 1);
}

// An array of elements of `step` values. With a delta, elements [0, split) are the base's and those
// that follow are the delta's, whose pointer is moved back so that both are indexed alike.
template <typename T, bool kHasDelta>
struct Segments {
  const T* base;
  const T* delta;
  int64_t split, step;
};
template <bool kHasDelta, typename T>
SOARDB_INLINE Segments<T, kHasDelta> segments(const T* base, const T* delta, int64_t split,
                                              int64_t step) {
  const uintptr_t back = static_cast<uintptr_t>(split * step) * sizeof(T);
  return {base, reinterpret_cast<const T*>(reinterpret_cast<uintptr_t>(delta) - back), split, step};
}
template <typename T, bool kHasDelta>
SOARDB_INLINE const T* at(const Segments<T, kHasDelta>& x, int64_t i) {
  if constexpr (!kHasDelta) return x.base + i * x.step;
  return (i < x.split ? x.base : x.delta) + i * x.step;
}

// ---------------------------------------------------------------- selection

// The `keep`-th largest of n > keep keys, by bisection on the value.
SOARDB_INLINE int32_t nth_largest(const int32_t* keys, int64_t n, int64_t keep) {
  int32_t least, most;
  key_range(keys, n, &least, &most);
  int64_t low = least, high = static_cast<int64_t>(most) + 1;  // count(low) >= keep > count(high)
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    const int64_t count = count_at_least(keys, n, static_cast<int32_t>(middle));
    if (count >= keep) {
      low = middle;
      if (count == keep) {
        // Exactly the right number: the pivot may be any value down to the next smaller key.
        break;
      }
    } else {
      high = middle;
    }
  }
  return static_cast<int32_t>(low);
}

static int64_t keep_largest(int32_t* keys, uint32_t* values, int64_t n, int64_t keep,
                            int32_t* threshold) {
  if (n <= keep) return n;
  const int32_t pivot = nth_largest(keys, n, keep);
  // Keys above the pivot stay; of those equal to it the earliest, as many as fit.
  int64_t ties = keep - (pivot == INT32_MAX ? 0 : count_at_least(keys, n, pivot + 1));
  *threshold = pivot;
  return compress_largest(keys, values, n, pivot, ties);
}

// ---------------------------------------------------------------- 4-bit codes

SOARDB_INLINE uint32_t tail_mask(int64_t left) {
  return left >= kBlock ? 0xFFFFu : (1u << left) - 1u;
}

static void lut16_sums(const uint8_t* packed, int64_t n, int64_t m, const uint8_t* lut,
                       int32_t* out) {
  const int64_t lines = m / 8;
  for (int64_t i = 0; i < n; i += kBlock) {
    int32_t sums[16];
    store_sums(sums, sums16(packed + (i / kBlock) * lines * kLine, lines, lut, 0));
    const int64_t count = n - i < kBlock ? n - i : kBlock;
    for (int64_t j = 0; j < count; ++j) out[i + j] = sums[j];
  }
}

// The unsorted pool of the best keys so far.
struct Pool {
  int32_t* keys;
  uint32_t* values;
  int64_t keep, capacity, size;
  int32_t threshold;
  bool open;  // nothing was dropped yet: every key is welcome
};

SOARDB_INLINE void settle(Pool& pool) {
  SOARDB_STAGE(pool);
  if (pool.size <= pool.keep) return;
  pool.size = keep_largest(pool.keys, pool.values, pool.size, pool.keep, &pool.threshold);
  pool.open = false;
}

SOARDB_INLINE void push(Pool& pool, Sums16 sums, uint32_t first, uint32_t mask) {
  pool.size += push_some(sums, mask, first, pool.keys + pool.size, pool.values + pool.size);
  if (pool.size > pool.capacity - 2 * kBlock) settle(pool);
}

SOARDB_INLINE void offer(Pool& pool, Sums16 sums, uint32_t first, uint32_t valid) {
  const uint32_t mask = (pool.open ? 0xFFFFu : mask_above(sums, pool.threshold)) & valid;
  if (mask) push(pool, sums, first, mask);
}

// As offer() and push(), where room is made by the caller. Where pushing needs no loop, it costs
// less than a branch on whether there is something to push.
SOARDB_INLINE void take(Pool& pool, Sums16 sums, uint32_t first, uint32_t valid) {
  const uint32_t mask = (pool.open ? 0xFFFFu : mask_above(sums, pool.threshold)) & valid;
  if (kBranchlessPush || mask)
    pool.size += push_some(sums, mask, first, pool.keys + pool.size, pool.values + pool.size);
}

static int64_t lut16_topk(const uint8_t* packed, int64_t n, int64_t m, const uint8_t* lut,
                          int32_t bias, int64_t keep, int64_t capacity, int32_t* keys,
                          uint32_t* positions) {
  Pool pool{keys, positions, keep, capacity, 0, INT32_MIN, true};
  const int64_t lines = m / 8, bytes = lines * kLine;
  int64_t i = 0;
  for (; i + 2 * kBlock <= n; i += 2 * kBlock, packed += 2 * bytes) {
    Sums16 a, b;
    sums16_pair<0>(packed, packed + bytes, lines, lut, bias, bias, packed, packed, &a, &b);
    offer(pool, a, static_cast<uint32_t>(i), 0xFFFFu);
    offer(pool, b, static_cast<uint32_t>(i + kBlock), 0xFFFFu);
  }
  for (; i < n; i += kBlock, packed += bytes)
    offer(pool, sums16(packed, lines, lut, bias), static_cast<uint32_t>(i), tail_mask(n - i));
  settle(pool);
  return pool.size;
}

// ---------------------------------------------------------------- 8-bit rows

static int32_t sum_bytes(const int8_t* query, int64_t d) {
  int32_t sum = 0;
  for (int64_t i = 0; i < d; ++i) sum += query[i];
  return sum;
}

template <bool kHasDelta>
static void dot_chosen(const Segments<uint8_t, kHasDelta>& rows, int64_t n,
                       const uint32_t* chosen, const int8_t* query, int64_t d, int32_t* out) {
  const int32_t correction = 128 * sum_bytes(query, d);
  constexpr int64_t ahead = 16;
  const int64_t touched = d < rows.step ? d : rows.step;
  for (int64_t i = 0; i < (n < ahead ? n : ahead); ++i)
    for (int64_t byte = 0; byte < touched; byte += 64)
      __builtin_prefetch(at(rows, chosen[i]) + byte);
  for (int64_t i = 0; i < n; ++i) {
    if (i + ahead < n)
      for (int64_t byte = 0; byte < touched; byte += 64)
        __builtin_prefetch(at(rows, chosen[i + ahead]) + byte);
    out[i] = dot_bytes(at(rows, chosen[i]), query, d) - correction;
  }
}

static void dot_u8(const uint8_t* rows, int64_t n, int64_t stride, const uint32_t* chosen,
                   const int8_t* query, int64_t d, int32_t* out) {
  if (chosen) {
    dot_chosen(Segments<uint8_t, false>{rows, nullptr, 0, stride}, n, chosen, query, d, out);
    return;
  }
  const int32_t correction = 128 * sum_bytes(query, d);
  for (int64_t i = 0; i < n; ++i) out[i] = dot_bytes(rows + i * stride, query, d) - correction;
}

// Rows of elements T, each made a row that open16 knows by `form`.
template <bool kHasDelta, typename T, typename Form>
SOARDB_INLINE void score_chosen(const Segments<T, kHasDelta>& vectors, int64_t d, int64_t n,
                                const uint32_t* chosen, const float* query, int metric,
                                const Form& form, float* out) {
  constexpr int64_t line = kLine / sizeof(T);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < d; j += line) __builtin_prefetch(at(vectors, chosen[i]) + j);
  for (int64_t i = 0; i < n; ++i)
    out[i] = row_score(form(at(vectors, chosen[i])), query, d, metric);
}

template <bool kHasDelta>
static void score_kept(const Kept& x, int64_t n, const uint32_t* chosen, const float* query,
                       int metric, float* out) {
  const auto rows = [&](auto* base) {
    return segments<kHasDelta>(base, static_cast<decltype(base)>(x.delta), x.n, x.step);
  };
  if (x.precision == kBfloat16)
    score_chosen(rows(static_cast<const uint16_t*>(x.base)), x.d, n, chosen, query, metric,
                 [](const uint16_t* row) { return Bfloat16Row{row}; }, out);
  else if (x.precision == kInt8)
    score_chosen(rows(static_cast<const uint8_t*>(x.base)), x.d, n, chosen, query, metric,
                 [&](const uint8_t* row) { return ByteRow{row, x.scale, x.offset}; }, out);
  else
    score_chosen(rows(static_cast<const float*>(x.base)), x.d, n, chosen, query, metric,
                 [](const float* row) { return FloatRow{row}; }, out);
}
static void score_kept_rows(const Kept& x, int64_t n, const uint32_t* chosen, const float* query,
                            int metric, float* out) {
  if (x.delta)
    score_kept<true>(x, n, chosen, query, metric, out);
  else
    score_kept<false>(x, n, chosen, query, metric, out);
}

static void score_f32(const float* vectors, int64_t n, int64_t d, const uint32_t* chosen,
                      const float* query, int metric, float* out) {
  if (chosen) {
    score_kept<false>(Kept{kFloat32, vectors, nullptr, n, d, d}, n, chosen, query, metric, out);
    return;
  }
  for (int64_t i = 0; i < n; ++i) out[i] = exact_score(vectors + i * d, query, d, metric);
}

// ---------------------------------------------------------------- float32 panels

// acc[r][h] += row r (kRows of them, `step` floats apart) times panel columns [16h, 16h + 16).
template <int R>
SOARDB_INLINE void panel_products(const float* panel, const float* rows, int64_t step, int64_t d,
                                  F16 (&acc)[R][2]) {
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = set16(0);
  for (int64_t i = 0; i < d; ++i) {
    const F16 left = load16(panel + i * kPanel), right = load16(panel + i * kPanel + 16);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const F16 x = set16(rows[r * step + i]);
      acc[r][0] = fma16(x, left, acc[r][0]);
      acc[r][1] = fma16(x, right, acc[r][1]);
    }
  }
}
template <int R>
SOARDB_INLINE void panel_distances(const float* panel, const float* rows, int64_t step, int64_t d,
                                   F16 (&acc)[R][2]) {
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = set16(0);
  for (int64_t i = 0; i < d; ++i) {
    const F16 left = load16(panel + i * kPanel), right = load16(panel + i * kPanel + 16);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const F16 x = set16(rows[r * step + i]);
      const F16 a = x - left, b = x - right;
      acc[r][0] = fma16(a, a, acc[r][0]);
      acc[r][1] = fma16(b, b, acc[r][1]);
    }
  }
}

// ---------------------------------------------------------------- exact search

SOARDB_INLINE void offer_scores(Pool& pool, F16 scores, uint32_t first, uint32_t valid) {
  float values[16];
  store16(values, scores);
  int32_t keys[16];
  for (int l = 0; l < 16; ++l) keys[l] = sortable(values[l]);
  offer(pool, load_sums(keys), first, valid);
}

template <int R>
SOARDB_INLINE void topk_rows(const float* panel, int64_t left, uint32_t first, int64_t d,
                             const float* queries, int metric, Pool* pools) {
  F16 acc[R][2];
  if (metric == kL2)
    panel_distances<R>(panel, queries, d, d, acc);
  else
    panel_products<R>(panel, queries, d, d, acc);
  for (int r = 0; r < R; ++r)
    for (int h = 0; h < 2; ++h) {
      const int64_t here = left - 16 * h;
      if (here <= 0) continue;
      const F16 scores = metric == kL2 ? set16(0) - acc[r][h] : acc[r][h];
      offer_scores(pools[r], scores, first + 16 * h, tail_mask(here));
    }
}

static void exact_topk_block(const float* panels, int64_t nrow, int64_t first_row, int64_t d,
                             const float* queries, int64_t nq, int metric, int64_t keep,
                             int64_t capacity, int32_t* keys, uint32_t* rows, int64_t* counts,
                             int32_t* thresholds) {
  for (int64_t q = 0; q < nq;) {
    const int64_t take = nq - q >= kRows ? kRows : 1;
    Pool pools[kRows];
    for (int64_t r = 0; r < take; ++r)
      pools[r] = Pool{keys + (q + r) * capacity, rows + (q + r) * capacity, keep, capacity,
                      counts[q + r], thresholds[q + r], thresholds[q + r] == INT32_MIN};
    for (int64_t c = 0; c < nrow; c += kPanel) {
      const uint32_t first = static_cast<uint32_t>(first_row + c);
      if (take == kRows)
        topk_rows<kRows>(panels + c * d, nrow - c, first, d, queries + q * d, metric, pools);
      else
        topk_rows<1>(panels + c * d, nrow - c, first, d, queries + q * d, metric, pools);
    }
    for (int64_t r = 0; r < take; ++r) {
      counts[q + r] = pools[r].size;
      thresholds[q + r] = pools[r].open ? INT32_MIN : pools[r].threshold;
    }
    q += take;
  }
}

// Shell sort of positions by a strict order: small inputs, no allocation, no std:: template.
template <typename Before>
SOARDB_INLINE void sort_positions(int32_t* positions, int64_t n, const Before& before) {
  int64_t gap = 1;
  while (gap < n / 3) gap = 3 * gap + 1;
  for (; gap > 0; gap /= 3)
    for (int64_t i = gap; i < n; ++i) {
      const int32_t moving = positions[i];
      int64_t j = i;
      for (; j >= gap && before(moving, positions[j - gap]); j -= gap)
        positions[j] = positions[j - gap];
      positions[j] = moving;
    }
}

static int64_t exact_topk_row(const float* vectors, int64_t n, int64_t d, const float* query,
                              int metric, int64_t keep, int64_t capacity, int32_t* keys,
                              uint32_t* rows) {
  Pool pool{keys, rows, keep, capacity, 0, INT32_MIN, true};
  for (int64_t i = 0; i < n; i += kBlock) {
    const int64_t count = n - i < kBlock ? n - i : kBlock;
    float block[16] = {};
    for (int64_t j = 0; j < count; ++j)
      block[j] = exact_score(vectors + (i + j) * d, query, d, metric);
    offer_scores(pool, load16(block), static_cast<uint32_t>(i), tail_mask(count));
  }
  settle(pool);
  return pool.size;
}

#include "build.inl"

#include "topk.inl"

// ---------------------------------------------------------------- the fused query

// Ranges below this count as zero: the inverse of their step is no float.
constexpr float kTiny = 0x1p-110f;

// Round a query folded with the rows' scale, where they have one, to signed bytes; returns the step.
static float quantize_query(const float* query, const float* scale, int64_t d, int8_t* out) {
  const auto fold = [&](int64_t i, int64_t c) {
    const F16 values = load_some(query + i, c);
    return scale ? values * load_some(scale + i, c) : values;
  };
  F16 peaks = set16(0);
  for (int64_t i = 0; i < d; i += 16) {
    const int64_t c = d - i < 16 ? d - i : 16;
    peaks = max16(peaks, abs16(fold(i, c)));
  }
  const float peak = highest16(peaks);
  const float inverse = peak < kTiny ? 0.0f : 127.0f / peak;
  for (int64_t i = 0; i < d; i += 16) {
    const int64_t c = d - i < 16 ? d - i : 16;
    const F16 folded = fold(i, c);
    float rounded[16];
    store16(rounded, round16(folded * set16(inverse)));
    for (int j = 0; j < 16; ++j) out[i + j] = static_cast<int8_t>(rounded[j]);
  }
  return peak < kTiny ? 0.0f : peak / 127.0f;
}

// What the sub-spaces are of: the query, or what the rotation makes of it, and what l2 adds.
static const float* coded_query(const Ivf& x, Scratch& s) {
  if (!x.nturned) return s.centred;
  SOARDB_STAGE(lut);
  const float step = quantize_query(s.centred, nullptr, x.d, s.coded_query);
  score_blocks(x.rotation_codes, x.nturned / kBlock, ceil_div(x.d, 4), s.coded_query,
               128 * sum_bytes(s.coded_query, x.d), s.sort_keys);
  for (int64_t i = 0; i < x.nturned; i += kBlock)
    store16(s.coded + i,
            to_float(s.sort_keys + i) * set16(step) * load16(x.rotation_scale + i));
  const int64_t end = x.block_dims[x.m];
  for (int64_t i = end - (x.metric == kL2 ? 2 : 0); i < end; ++i) s.coded[i] = 1.0f;
  return s.coded;
}

// Returns (in *span, *floor) and fills the byte tables: reference.py, build_lut.
static void build_lut(const Ivf& x, const float* query, Scratch& s, float* span, float* floor) {
  SOARDB_STAGE(lut);
  float widest = 0, sum = 0;
  for (int64_t b = 0; b < x.m; ++b) {
    F16 table = set16(0);
    for (int32_t j = x.block_dims[b]; j < x.block_dims[b + 1]; ++j)
      table = table +
              set16(query[j]) * load16(x.codebook + (b * x.width + j - x.block_dims[b]) * 16);
    const float low = lowest16(table), range = highest16(table) - low;
    s.lows[b] = low;
    sum = sum + low;
    widest = range > widest ? range : widest;
    store16(s.tables + 16 * b, table);
  }
  *span = widest;
  *floor = sum;
  const float step = widest >= kTiny ? 255.0f / widest : 0.0f;
  for (int64_t b = 0; b < x.m; ++b) {
    const F16 level = (load16(s.tables + 16 * b) - set16(s.lows[b])) * set16(step);
    store_bytes(s.lut + 16 * b, round16(level));
  }
}

// Lists [0, n) of s.order by score, best first, in kSteps equal steps from the best score to the
// worst; within a step they keep their order.
static void sort_roughly(Scratch& s, int64_t n) {
  float best = -__builtin_inff(), worst = __builtin_inff();
  for (int64_t i = 0; i < n; ++i) {
    best = s.order_scores[i] > best ? s.order_scores[i] : best;
    worst = s.order_scores[i] < worst ? s.order_scores[i] : worst;
  }
  const float range = best - worst;
  if (!(range >= kTiny && range <= __FLT_MAX__)) return;  // of scores that are not finite: no order
  const float inverse = static_cast<float>(kSteps - 1) / range;
  int32_t start[kSteps + 1] = {};
  for (int64_t i = 0; i < n; ++i) {
    const int32_t step = static_cast<int32_t>((best - s.order_scores[i]) * inverse);
    s.steps[i] = step;
    ++start[step + 1];
  }
  for (int64_t step = 0; step < kSteps; ++step) start[step + 1] += start[step];
  for (int64_t i = 0; i < n; ++i) {
    const int32_t to = start[s.steps[i]]++;
    s.slot_ids[to] = s.order[i];
    s.slot_scores[to] = s.order_scores[i];
  }
  __builtin_memcpy(s.order, s.slot_ids, n * sizeof(int32_t));
  __builtin_memcpy(s.order_scores, s.slot_scores, n * sizeof(float));
}

// The lists to visit, in order, into s.order / s.order_scores; returns how many.
static int64_t best_lists(const Ivf& x, const Plan& plan, Scratch& s) {
  SOARDB_STAGE(lists);
  const int64_t quads = ceil_div(x.d, 4);
  const float step = quantize_query(s.centred, x.centroid_scale, x.d, s.centroid_query);
  const float offset = lane_dot(s.centred, x.centroid_offset, x.d);
  const int32_t correction = 128 * sum_bytes(s.centroid_query, x.d);
  uint32_t* slots = reinterpret_cast<uint32_t*>(s.slot_ids);
  int64_t found = 0;
  int32_t threshold = INT32_MIN;

  // Offers the centroids of some blocks to the best of those before; padding scores -inf.
  const auto offer_blocks = [&](const uint8_t* codes, const float* bias, int64_t first,
                                int64_t blocks, int64_t keep) {
    {
      SOARDB_STAGE(centroids);
      score_blocks(codes + first * quads * kLine, blocks, quads, s.centroid_query, correction,
                   s.sort_keys);
      for (int64_t i = 0; i < blocks * kBlock; i += kBlock)
        store16(s.slot_scores + i, to_float(s.sort_keys + i) * set16(step) +
                                       load16(bias + first * kBlock + i));
    }
    const int64_t tight = pool_capacity(keep);
    found = select_scores(s.slot_scores, blocks * kBlock, first * kBlock, keep,
                          tight < s.nslots ? tight : s.nslots, s.slot_keys, slots, found,
                          &threshold);
  };
  const auto keep_best = [&](int64_t keep) {
    found = keep_largest(s.slot_keys, slots, found, keep, &threshold);
  };

  if (x.ncell) {
    offer_blocks(x.cell_codes, x.cell_bias, 0, ceil_div(x.ncell, kBlock), plan.cellprobe);
    keep_best(plan.cellprobe);
    const int64_t cells = found;
    for (int64_t i = 0; i < cells; ++i) s.order[i] = s.slot_ids[i];
    found = 0;
    threshold = INT32_MIN;
    for (int64_t i = 0; i < cells; ++i) {
      const int32_t first = x.cell_start[s.order[i]];
      offer_blocks(x.centroid_codes, x.centroid_bias, first,
                   x.cell_start[s.order[i] + 1] - first, plan.nprobe);
    }
  } else {
    offer_blocks(x.centroid_codes, x.centroid_bias, 0, x.nslot / kBlock, plan.nprobe);
  }
  keep_best(plan.nprobe);
  for (int64_t i = 0; i < found; ++i) {
    s.order[i] = s.slot_ids[i];
    s.order_scores[i] = from_sortable(s.slot_keys[i]);
  }
  sort_roughly(s, found);
  for (int64_t i = 0; i < found; ++i) s.order_scores[i] = s.order_scores[i] + offset;
  return found;
}

SOARDB_INLINE void prefetch_block(const uint8_t* codes, int64_t lines) {
  for (int64_t g = 0; g < lines; ++g) __builtin_prefetch(codes + g * kLine);
}

// Calls body with the number of lines as a constant, where a loop of that length is worth its code.
template <typename Body>
SOARDB_INLINE void with_lines(int64_t lines, const Body& body) {
  if constexpr (kFixesLines) {
    switch (lines) {
#define SOARDB_LINES(n) \
  case n:               \
    return body(std::integral_constant<int, n>{});
      SOARDB_LINES(1)
      SOARDB_LINES(2)
      SOARDB_LINES(3)
      SOARDB_LINES(4)
      SOARDB_LINES(5)
      SOARDB_LINES(6)
      SOARDB_LINES(7)
      SOARDB_LINES(8)
      SOARDB_LINES(9)
      SOARDB_LINES(10)
      SOARDB_LINES(11)
      SOARDB_LINES(12)
#undef SOARDB_LINES
    }
  }
  body(std::integral_constant<int, 0>{});
}

// Codes on their way into a pool. Blocks of any lists are queued, in the order of the visit, so that
// the loop over them does not start and end with each list and knows far ahead what it will read.
struct Scan {
  const Ivf& x;
  const Filter* filter;
  const uint8_t* lut;
  Scratch& s;
  Pool& pool;
  int64_t queued, scanned;
};

SOARDB_INLINE void enqueue(Scan& scan, const uint8_t* codes, int64_t bytes, int64_t blocks,
                           int32_t bias, uint32_t first) {
  Scratch& s = scan.s;
  for (int64_t i = scan.queued; i < scan.queued + blocks; ++i) {
    s.block_codes[i] = codes + (i - scan.queued) * bytes;
    s.block_bias[i] = bias;
    s.block_first[i] = first + static_cast<uint32_t>((i - scan.queued) * kBlock);
    s.block_lanes[i] = 0xFFFFu;
  }
  scan.queued += blocks;
}

// Two blocks at a time, so that the table loads are shared; lines is kLines unless that is 0.
template <int kLines>
static void scan_queue(const Scan& scan, int64_t some_lines) {
  const int64_t lines = kLines ? kLines : some_lines;
  const Scratch& s = scan.s;
  Pool& pool = scan.pool;
  // Settling early keeps the threshold tight, and few are pushed in vain.
  const int64_t roomy = pool.capacity - 3 * kBlock, tight = pool.keep + kPoolSlack;
  const int64_t full = tight < roomy ? tight : roomy;
  for (int64_t i = 0; i < scan.queued; i += 2) {
    const uint8_t *first = s.block_codes[i], *second = s.block_codes[i + 1];
    Sums16 a, b;
    sums16_pair<kLines>(first, second, lines, scan.lut, s.block_bias[i], s.block_bias[i + 1],
                        s.block_codes[i + kAhead], s.block_codes[i + kAhead + 1], &a, &b);
    take(pool, a, s.block_first[i], s.block_lanes[i]);
    take(pool, b, s.block_first[i + 1], s.block_lanes[i + 1]);
    if (pool.size > full) settle(pool);
  }
}

// The same of allowed rows. While every key is welcome the filter is asked first, which spares the
// sums of a block without an allowed row; later the threshold is.
static void scan_queue_allowed(const Scan& scan, int64_t lines) {
  const Scratch& s = scan.s;
  const Filter& filter = *scan.filter;
  Pool& pool = scan.pool;
  const auto rows = segments<true>(scan.x.code_rows, scan.x.delta_code_rows, scan.x.ncode, 1);
  int64_t i = 0;
  for (; i < scan.queued && pool.open; ++i) {
    prefetch_block(s.block_codes[i + kAhead], lines);
    const uint32_t first = s.block_first[i];
    const uint32_t mask = allowed_lanes(filter, at(rows, first), s.block_lanes[i]);
    if (mask)
      push(pool, sums16(s.block_codes[i], lines, scan.lut, s.block_bias[i]), first, mask);
  }
  for (; i < scan.queued; ++i) {
    prefetch_block(s.block_codes[i + kAhead], lines);
    const uint32_t first = s.block_first[i];
    const Sums16 sums = sums16(s.block_codes[i], lines, scan.lut, s.block_bias[i]);
    uint32_t mask = mask_above(sums, pool.threshold) & s.block_lanes[i];
    if (mask) mask = allowed_lanes(filter, at(rows, first), mask);
    if (mask) push(pool, sums, first, mask);
  }
}

// Scans what is queued.
static void drain(Scan& scan) {
  if (!scan.queued) return;
  Scratch& s = scan.s;
  for (int64_t i = scan.queued; i < scan.queued + kAhead + 2; ++i) {
    s.block_codes[i] = s.block_codes[scan.queued - 1];
    s.block_lanes[i] = 0;
  }
  const int64_t lines = scan.x.m / 8;
  if (scan.filter)
    scan_queue_allowed(scan, lines);
  else
    with_lines(lines, [&](auto fixed) { scan_queue<fixed>(scan, lines); });
  scan.queued = 0;
}

// Codes [from, to) of a list, of the base or of the delta; `from` is a multiple of the block.
static void visit(Scan& scan, int32_t list, bool is_delta, int64_t from, int64_t to,
                  int32_t bias) {
  const Ivf& x = scan.x;
  const int64_t bytes = x.m / 8 * kLine;
  const int64_t start = is_delta ? x.delta_start[list] : x.list_start[list];
  const uint8_t* codes =
      (is_delta ? x.delta_codes : x.codes) + (start + from / kBlock) * bytes;
  int64_t first = (is_delta ? x.ncode : 0) + start * kBlock + from;
  scan.scanned += to - from;
  for (int64_t left = ceil_div(to - from, kBlock); left > 0;) {
    const int64_t room = kQueue - scan.queued, blocks = left < room ? left : room;
    enqueue(scan, codes, bytes, blocks, bias, static_cast<uint32_t>(first));
    codes += blocks * bytes;
    first += blocks * kBlock;
    left -= blocks;
    if (!left) scan.s.block_lanes[scan.queued - 1] = tail_mask((to - from - 1) % kBlock + 1);
    if (scan.queued == kQueue) drain(scan);
  }
}

// How many lists are visited until the next look at the threshold: 8, 12, 16, 24, 32, 48, ...
SOARDB_INLINE int64_t next_look(int64_t look) {
  return look + (kFirstLook << (63 - __builtin_clzll(look / kFirstLook))) / 2;
}
SOARDB_INLINE double at_most(double x, double most) { return x < most ? x : most; }

// Keys a unit of score, of a query's tables and of the lists that it visits. Tables that are too
// small beside the lists' scores to tell codes apart become zeros.
static double keys_a_unit(const Ivf& x, Scratch& s, int64_t lists, float span, float floor) {
  float peak = 0;
  for (int64_t i = 0; i < lists; ++i) {
    const float size = s.order_scores[i] < 0 ? -s.order_scores[i] : s.order_scores[i];
    peak = size > peak ? size : peak;
  }
  const float least = (peak + (floor < 0 ? -floor : floor)) * 0x1p-20f;
  const float widest = span > least ? span : least;
  if (widest > span) __builtin_memset(s.lut, 0, 16 * x.m);
  return widest >= kTiny ? static_cast<double>(255.0f / widest) : 0.0;
}
SOARDB_INLINE int32_t key_of(float score, double step) {
  return round_to_int(static_cast<double>(score) * step);
}

// Scans the lists into the pool; returns how many codes the visited ones hold. A list is passed over
// where its centroid scores lower, by more than the margin, than the worst of the best codes at the
// last look.
static int64_t scan_lists(const Ivf& x, const Filter* filter, Scratch& s, int64_t lists,
                          double step, float floor, float margin, Pool& pool) {
  SOARDB_STAGE(scan);
  Scan scan{x, filter, s.lut, s, pool, 0, 0};
  const int32_t slack = round_to_int(at_most(static_cast<double>(margin) * step, 0x1p29));
  int32_t least_reach = INT32_MIN;
  int64_t look = margin < __builtin_inff() ? kFirstLook : lists;
  for (int64_t i = 0; i < lists; ++i) {
    if (i == look) {
      drain(scan);
      settle(pool);
      if (!pool.open) {
        int32_t worst, best;
        key_range(pool.keys, pool.size, &worst, &best);
        least_reach = worst - slack;
      }
      look = next_look(look);
    }
    if (key_of(s.order_scores[i], step) < least_reach) continue;
    const int32_t list = x.slot_list[s.order[i]], bias = key_of(s.order_scores[i] + floor, step);
    visit(scan, list, false, 0, x.list_count[list], bias);
    if (x.delta_start) visit(scan, list, true, 0, x.delta_count[list], bias);
  }
  drain(scan);
  settle(pool);
  return scan.scanned;
}

// Slots become rows; two codes of one row become one with the mean key. Returns how many are left.
template <bool kHasDelta>
static int64_t join_copies(const Ivf& x, Scratch& s, int64_t n) {
  SOARDB_STAGE(dedup);
  const auto code_rows = segments<kHasDelta>(x.code_rows, x.delta_code_rows, x.ncode, 1);
  const uint32_t mask = static_cast<uint32_t>(s.hash_size - 1);
  for (int64_t i = 0; i < n; ++i) __builtin_prefetch(at(code_rows, s.slots[i]));
  if (!x.is_spilled) {
    for (int64_t i = 0; i < n; ++i) s.rows[i] = *at(code_rows, s.slots[i]);
    return n;
  }
  __builtin_memset(s.hash_rows, 0xFF, s.hash_size * sizeof(uint32_t));
  int64_t kept = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t row = *at(code_rows, s.slots[i]);
    uint32_t place = (row * 2654435769u >> 7) & mask;
    while (s.hash_rows[place] != UINT32_MAX && s.hash_rows[place] != row) place = (place + 1) & mask;
    if (s.hash_rows[place] == row) {
      int32_t& key = s.keys[s.hash_places[place]];
      key = (key + s.keys[i]) >> 1;
      continue;
    }
    s.hash_rows[place] = row;
    s.hash_places[place] = static_cast<uint32_t>(kept);
    s.keys[kept] = s.keys[i];
    s.rows[kept++] = row;
  }
  return kept;
}

// The pool's n codes to the k best rows: join, rank by the 8-bit rows, then by float32.
template <bool kHasDelta>
static void rank_rows(const Ivf& x, const Plan& plan, const float* query, Scratch& s, int64_t n,
                      float* scores, int64_t* ids) {
  SOARDB_STAGE(rerank);
  n = join_copies<kHasDelta>(x, s, n);
  int32_t unused;
  n = keep_largest(s.keys, s.rows, n, plan.rerank, &unused);

  const float step = quantize_query(s.centred, x.store_scale, x.d, s.store_query);
  int32_t* products = s.keys;
  dot_chosen(segments<kHasDelta>(x.store, x.delta_store, x.n, x.stride), n, s.rows, s.store_query,
             x.d, products);
  const auto store_bias = segments<kHasDelta>(x.store_bias, x.delta_store_bias, x.n, 1);
  for (int64_t i = 0; i < n; ++i) {
    float rough = static_cast<float>(products[i]) * step;
    if (x.metric == kL2) rough = rough - *at(store_bias, s.rows[i]);
    s.keys[i] = sortable(rough);
  }
  n = keep_largest(s.keys, s.rows, n, plan.refine, &unused);
  SOARDB_STAGE(refine);
  score_kept<kHasDelta>(x.vectors, n, s.rows, query, x.metric, s.rough);
  const auto row_ids = segments<kHasDelta>(x.ids, x.delta_ids, x.n, 1);
  SOARDB_STAGE(order);
  for (int64_t i = 0; i < n; ++i) s.sort_keys[i] = static_cast<int32_t>(i);
  sort_positions(s.sort_keys, n, [&](int32_t a, int32_t b) {
    return s.rough[a] > s.rough[b] ||
           (s.rough[a] == s.rough[b] && *at(row_ids, s.rows[a]) < *at(row_ids, s.rows[b]));
  });
  for (int64_t i = 0; i < plan.k; ++i) {
    scores[i] = i < n ? s.rough[s.sort_keys[i]] : -__builtin_inff();
    ids[i] = i < n ? *at(row_ids, s.rows[s.sort_keys[i]]) : -1;
  }
}

// The query as it is compared: into s.centred, extended by what the additive term of l2 is
// multiplied by, and into *query as exact scores take it.
static int prepare_query(const Ivf& x, const float* raw, Scratch& s, const float** query) {
  float squared = lane_dot(raw, raw, x.d);
  if (!(squared <= __FLT_MAX__)) return kNotFinite;
  // The square of a tiny query loses bits; a power of two moves nothing but the exponent.
  const float lift = squared < 0x1p-100f ? 0x1p100f : 1.0f;
  *query = raw;
  for (int64_t i = 0; i < x.d; ++i)
    s.centred[i] = x.metric == kL2 ? raw[i] - x.mean[i] : raw[i] * lift;
  if (x.metric == kCosine) {
    squared = lane_dot(s.centred, s.centred, x.d);
    if (squared == 0) return kZeroVector;
    const float inverse = 1.0f / __builtin_sqrtf(squared);
    for (int64_t i = 0; i < x.d; ++i) s.query[i] = s.centred[i] = s.centred[i] * inverse;
    *query = s.query;
  }
  for (int64_t i = x.d; i < x.block_dims[x.m]; ++i) s.centred[i] = 1.0f;
  return kOk;
}

static int ivf_search(const Ivf& x, const Plan& plan, const Filter* filter, const float* raw,
                      Scratch& s, float* scores, int64_t* ids, int64_t* scanned) {
  SOARDB_STAGE(prepare);
  const float* query;
  if (const int status = prepare_query(x, raw, s, &query)) return status;
  const int64_t lists = best_lists(x, plan, s);
  float span, floor, margin = __builtin_inff();
  build_lut(x, coded_query(x, s), s, &span, &floor);
  const double step = keys_a_unit(x, s, lists, span, floor);
  if (plan.stop < margin)
    margin = plan.stop * (x.spread * __builtin_sqrtf(lane_dot(s.centred, s.centred, x.d)));
  Pool pool{s.keys, s.slots, plan.collect, s.pool, 0, INT32_MIN, true};
  *scanned = scan_lists(x, filter, s, lists, step, floor, margin, pool);
  if (x.delta_start)
    rank_rows<true>(x, plan, query, s, pool.size, scores, ids);
  else
    rank_rows<false>(x, plan, query, s, pool.size, scores, ids);
  return kOk;
}

static void score_blocks_u8(const uint8_t* blocks, int64_t nblock, int64_t quads,
                            const int8_t* query, int32_t* out) {
  score_blocks(blocks, nblock, quads, query, 128 * sum_bytes(query, 4 * quads), out);
}

#include "list_major.inl"

static constexpr Kernels make_table(const char* name) {
  return Kernels{name,           lut16_sums,       lut16_topk,   dot_u8,
                 score_blocks_u8, score_f32,      score_kept_rows, exact_topk_row,
                 exact_topk_block, keep_largest, assign,           spill_assign, encode,
                 bucket_scores,  select_scores,    quantized_scores, ivf_search,
                 prepare_lists,  scan_piece,       finish_lists};
}
