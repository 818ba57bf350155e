// Top-k over scores and over quantized rows: the loops that need memory, threads or a sort.
//
//   module.cpp -> [topk.cpp] -> kernels_<isa>.cpp (topk.inl)
//
// One order everywhere: the bigger score first, equal scores by rising row. What is not found is row
// -1 with score -inf. soardb/kernels/topk_reference.py is the specification.
#include "soardb/topk.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

namespace soardb {
namespace {

constexpr int64_t kTileBytes = 32 << 10;  // codes that many queries read while they are cached
constexpr int64_t kRadixFrom = 192;       // below this a comparison sort is the quicker
constexpr size_t kKeptNumbers = 1 << 20;  // what a thread may keep of each kind between two calls
constexpr float kMissing = -std::numeric_limits<float>::infinity();

// A score and its row as one number that sorts in the common order when sorted upwards.
uint64_t ordered(int32_t key, uint32_t row) {
  return static_cast<uint64_t>(~(static_cast<uint32_t>(key) ^ 0x80000000u)) << 32 | row;
}
int32_t key_of(float x) {
  x += 0.0f;
  int32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits ^ static_cast<int32_t>(static_cast<uint32_t>(bits >> 31) >> 1);
}
uint32_t row_of(uint64_t item) { return static_cast<uint32_t>(item); }
float score_of(uint64_t item) {
  const int32_t key = static_cast<int32_t>(~static_cast<uint32_t>(item >> 32) ^ 0x80000000u);
  const int32_t bits = key ^ static_cast<int32_t>(static_cast<uint32_t>(key >> 31) >> 1);
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

// Upwards; by bytes from the lowest, those that are the same in all left out.
void sort_items(std::vector<uint64_t>& items, std::vector<uint64_t>& room) {
  const int64_t n = static_cast<int64_t>(items.size());
  if (n < kRadixFrom) {
    std::sort(items.begin(), items.end());
    return;
  }
  uint64_t differs = 0;
  for (const uint64_t item : items) differs |= item ^ items[0];
  room.resize(n);
  for (int shift = 0; shift < 64; shift += 8) {
    if (!(differs >> shift & 255)) continue;
    int64_t starts[257] = {};
    for (const uint64_t item : items) ++starts[(item >> shift & 255) + 1];
    for (int digit = 0; digit < 256; ++digit) starts[digit + 1] += starts[digit];
    for (const uint64_t item : items) room[starts[item >> shift & 255]++] = item;
    items.swap(room);
  }
}

// One thread's memory; stays for the next call unless it has grown large.
struct Room {
  std::vector<int32_t> keys, bucket_rows, products;
  std::vector<uint32_t> rows;
  std::vector<float> bucket_values, scores;
  std::vector<uint64_t> items, other;

  bool is_large() const {
    return std::max({keys.capacity(), bucket_rows.capacity(), items.capacity(),
                     scores.capacity()}) > kKeptNumbers;
  }
};
class Borrowed {
 public:
  ~Borrowed() {
    if (room_.is_large()) room_ = Room{};
  }
  operator Room&() { return room_; }

 private:
  static thread_local Room room_;
};
thread_local Room Borrowed::room_;

// The items of a pool, best first.
void take_sorted(Room& r, const int32_t* keys, const uint32_t* rows, int64_t n) {
  r.items.resize(n);
  for (int64_t i = 0; i < n; ++i) r.items[i] = ordered(keys[i], rows[i]);
  sort_items(r.items, r.other);
}

void write_best(const Room& r, int64_t k, float* values, int64_t* rows) {
  const int64_t found = std::min<int64_t>(k, static_cast<int64_t>(r.items.size()));
  for (int64_t i = 0; i < found; ++i) {
    values[i] = score_of(r.items[i]);
    rows[i] = row_of(r.items[i]);
  }
  std::fill(values + found, values + k, kMissing);
  std::fill(rows + found, rows + k, int64_t{-1});
}

void fit_pool(Room& r, int64_t keep) {
  r.keys.resize(pool_capacity(keep));
  r.rows.resize(pool_capacity(keep));
}

// The k biggest of n scores, ties to the earlier place, in no order; returns how many.
int64_t select(const Kernels& k, Room& r, const float* scores, int64_t n, int64_t keep) {
  fit_pool(r, keep);
  int32_t threshold = INT32_MIN;
  const int64_t size = k.select_scores(scores, n, 0, keep, pool_capacity(keep), r.keys.data(),
                                       r.rows.data(), 0, &threshold);
  return k.keep_largest(r.keys.data(), r.rows.data(), size, keep, &threshold);
}

// The k best survivors of one row of scores into r.items, best first.
void best_survivors(const Kernels& k, Room& r, const float* values, const int32_t* owners,
                    int64_t n, int64_t want) {
  const int64_t found = select(k, r, values, n, want);
  if (!found) {
    r.items.clear();
    return;
  }
  const int64_t last = std::min_element(r.keys.begin(), r.keys.begin() + found) - r.keys.begin();
  const int32_t least = r.keys[last];
  const float bar = values[r.rows[last]];
  int64_t chosen = 0, held = 0;
  for (int64_t i = 0; i < found; ++i) chosen += r.keys[i] == least;
  for (int64_t i = 0; i < n; ++i) held += values[i] == bar;
  r.items.clear();
  for (int64_t i = 0; i < found; ++i)
    if (chosen == held || r.keys[i] != least)
      r.items.push_back(ordered(r.keys[i], static_cast<uint32_t>(owners[r.rows[i]])));
  if (chosen != held) {  // the pool took the first of equals by place, not by row
    r.other.clear();
    for (int64_t i = 0; i < n; ++i)
      if (values[i] == bar) r.other.push_back(ordered(least, static_cast<uint32_t>(owners[i])));
    std::nth_element(r.other.begin(), r.other.begin() + (chosen - 1), r.other.end());
    r.items.insert(r.items.end(), r.other.begin(), r.other.begin() + chosen);
  }
  sort_items(r.items, r.other);
}

// Whether no score that a bucket dropped can be among the k best. What a bucket dropped comes after
// its last survivor, so it is enough that none of those comes before the k-th found.
bool is_certain(const Room& r, const float* values, const int32_t* owners, int64_t n,
                int64_t count, int64_t keep, int64_t want) {
  const bool is_full = static_cast<int64_t>(r.items.size()) >= want;
  const uint64_t kth = is_full ? r.items[want - 1] : UINT64_MAX;
  const float* last = values + (keep - 1) * count;
  const int32_t* last_owners = owners + (keep - 1) * count;
  const float bar = is_full ? score_of(kth) : kMissing;
  for (int64_t b = 0; b < count; ++b) {
    const int64_t size = n / count + (b < n % count);
    if (size <= keep || last_owners[b] < 0 || last[b] < bar) continue;
    if (ordered(key_of(last[b]), static_cast<uint32_t>(last_owners[b])) < kth) return false;
  }
  return true;
}

}  // namespace

void select_topk(const Kernels& k, const float* scores, int64_t nq, int64_t n, int64_t want,
                 int threads, float* values, int64_t* rows) {
  parallel(nq, std::max<int64_t>(1, ceil_div(nq, 4 * std::max(threads, 1))), threads,
           [&](int64_t begin, int64_t end) {
             Borrowed borrowed;
             Room& r = borrowed;
             for (int64_t q = begin; q < end; ++q) {
               const int64_t found = select(k, r, scores + q * n, n, want);
               take_sorted(r, r.keys.data(), r.rows.data(), found);
               write_best(r, want, values + q * want, rows + q * want);
             }
           });
}

void bucket_topk(const Kernels& k, const float* scores, int64_t nq, int64_t n, int64_t count,
                 int64_t keep, int64_t want, int threads, float* values, int64_t* rows,
                 uint8_t* certain) {
  parallel(nq, std::max<int64_t>(1, ceil_div(nq, 4 * std::max(threads, 1))), threads,
           [&](int64_t begin, int64_t end) {
             Borrowed borrowed;
             Room& r = borrowed;
             r.bucket_values.resize(keep * count);
             r.bucket_rows.resize(keep * count);
             float* kept = r.bucket_values.data();
             int32_t* owners = r.bucket_rows.data();
             for (int64_t q = begin; q < end; ++q) {
               k.bucket_scores(scores + q * n, n, count, keep, kept, owners);
               best_survivors(k, r, kept, owners, keep * count, want);
               certain[q] = is_certain(r, kept, owners, n, count, keep, want);
               write_best(r, want, values + q * want, rows + q * want);
             }
           });
}

void bucket_survivors(const Kernels& k, const float* scores, int64_t nq, int64_t n, int64_t count,
                      int64_t keep, int threads, float* values, int32_t* rows) {
  parallel(nq, std::max<int64_t>(1, ceil_div(nq, 4 * std::max(threads, 1))), threads,
           [&](int64_t begin, int64_t end) {
             for (int64_t q = begin; q < end; ++q)
               k.bucket_scores(scores + q * n, n, count, keep, values + q * keep * count,
                               rows + q * keep * count);
           });
}

void quantized_topk(const Kernels& k, const Quantized& x, const int8_t* queries, int64_t nq,
                    int64_t want, int threads, float* values, int64_t* rows) {
  const int64_t width = x.units * (x.bits == 8 ? 4 : 8), block = x.units * kLine;
  const int64_t tile = std::max<int64_t>(1, kTileBytes / block), capacity = pool_capacity(want);
  const int64_t nblock = ceil_div(x.n, kBlock);
  // Queries that share a tile: as many as have pools in the second-level cache.
  const int64_t share = ceil_div(nq, std::max(threads, 1));
  const int64_t grain = std::max<int64_t>(1, std::min<int64_t>(share, (512 << 10) / (8 * capacity)));
  parallel(nq, grain, threads, [&](int64_t begin, int64_t end) {
    Borrowed borrowed;
    Room& r = borrowed;
    const int64_t count = end - begin;
    r.keys.resize(count * capacity);
    r.rows.resize(count * capacity);
    r.products.resize(tile * kBlock);
    r.scores.resize(tile * kBlock);
    std::vector<int64_t> sizes(count, 0);
    std::vector<int32_t> thresholds(count, INT32_MIN);
    for (int64_t b = 0; b < nblock; b += tile) {
      const int64_t some = std::min(tile, nblock - b), first = b * kBlock;
      for (int64_t q = 0; q < count; ++q) {
        k.quantized_scores(x.codes + b * block, x.bits, some, x.units,
                           queries + (begin + q) * width, x.scale + first, r.products.data(),
                           r.scores.data());
        sizes[q] = k.select_scores(r.scores.data(), std::min(some * kBlock, x.n - first), first,
                                   want, capacity, r.keys.data() + q * capacity,
                                   r.rows.data() + q * capacity, sizes[q], &thresholds[q]);
      }
    }
    for (int64_t q = 0; q < count; ++q) {
      int32_t* keys = r.keys.data() + q * capacity;
      uint32_t* found = r.rows.data() + q * capacity;
      take_sorted(r, keys, found, k.keep_largest(keys, found, sizes[q], want, &thresholds[q]));
      write_best(r, want, values + (begin + q) * want, rows + (begin + q) * want);
    }
  });
}

void quantized_all(const Kernels& k, const Quantized& x, const int8_t* queries, int64_t nq,
                   int threads, float* out) {
  const int64_t width = x.units * (x.bits == 8 ? 4 : 8), block = x.units * kLine;
  const int64_t tile = std::max<int64_t>(1, kTileBytes / block), nblock = ceil_div(x.n, kBlock);
  parallel(nq, 1, threads, [&](int64_t begin, int64_t end) {
    Borrowed borrowed;
    Room& r = borrowed;
    r.products.resize(tile * kBlock);
    r.scores.resize(tile * kBlock);
    for (int64_t q = begin; q < end; ++q)
      for (int64_t b = 0; b < nblock; b += tile) {
        const int64_t some = std::min(tile, nblock - b), first = b * kBlock;
        k.quantized_scores(x.codes + b * block, x.bits, some, x.units, queries + q * width,
                           x.scale + first, r.products.data(), r.scores.data());
        std::copy_n(r.scores.data(), std::min(some * kBlock, x.n - first), out + q * x.n + first);
      }
  });
}

void rescore_topk(const Kernels& k, const float* vectors, int64_t d, const float* queries,
                  int64_t nq, const int64_t* chosen, int64_t nchosen, int64_t want, int threads,
                  float* values, int64_t* rows) {
  parallel(nq, std::max<int64_t>(1, ceil_div(nq, 4 * std::max(threads, 1))), threads,
           [&](int64_t begin, int64_t end) {
             Borrowed borrowed;
             Room& r = borrowed;
             r.rows.resize(nchosen);
             r.scores.resize(nchosen);
             for (int64_t q = begin; q < end; ++q) {
               int64_t n = 0;
               for (int64_t i = 0; i < nchosen; ++i)
                 if (chosen[q * nchosen + i] >= 0)
                   r.rows[n++] = static_cast<uint32_t>(chosen[q * nchosen + i]);
               k.score_f32(vectors, n, d, r.rows.data(), queries + q * d, kDot, r.scores.data());
               r.items.clear();
               for (int64_t i = 0; i < n; ++i)
                 if (r.scores[i] > kMissing)
                   r.items.push_back(ordered(key_of(r.scores[i]), r.rows[i]));
               sort_items(r.items, r.other);
               write_best(r, want, values + q * want, rows + q * want);
             }
           });
}

}  // namespace soardb
