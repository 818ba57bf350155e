// Many queries against all 8-bit rows at once, and the float32 scores of what comes out.
//
//   module.cpp -> [batch.cpp] -> tiles_{scalar,avx2,vnni,amx}.cpp, kernels.hpp
//
// Queries are packed once into panels. A start threshold for each comes from the block maxima of a
// sample of rows: its keep-th largest is no more than that of all. Then every thread takes a share
// of the rows in memory order, and the shares' pools are joined, so that ties go to the lower row
// however many threads there were. Rows that a filter chose are gathered a few hundred at a time.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "soardb/batch.hpp"

namespace soardb {
namespace {

constexpr int64_t kGroup = 1024;          // queries whose pools are held at once
constexpr int64_t kPoolBytes = 64 << 20;  // and what the pools may take where `keep` is large
constexpr int64_t kStage = 256;           // rows gathered at once
constexpr int64_t kRun = 64;              // rows of the sample that lie together
constexpr int64_t kLeastSample = 4096, kSampleShare = 32;

// A row's rest that is under -inf as a key: what an empty pool of l2 must be above.
constexpr int32_t kOpenBiased = static_cast<int32_t>(0x807FFFFFu);

template <typename T>
class Aligned {
 public:
  explicit Aligned(int64_t count)
      : data_(static_cast<T*>(::operator new(std::max<int64_t>(count, 1) * sizeof(T),
                                             std::align_val_t{64}))) {}
  T* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  std::unique_ptr<T, Free> data_;
};

// The rows that take part, in order: all of a segment, or those that a filter chose.
class Source {
 public:
  Source(const ByteRows& rows, const Filter* filter, int64_t width)
      : rows_(rows), width_(width), all_(!filter) {
    if (filter) choose(*filter);
    // Rows whose `width` bytes are all inside the array; the others are staged.
    const int64_t beyond = std::max<int64_t>(0, width - rows.stride);
    inside_ = std::max<int64_t>(0, rows.n - ceil_div(beyond, rows.stride)) / 16 * 16;
  }

  int64_t size() const { return all_ ? rows_.n : static_cast<int64_t>(chosen_.size()); }

  // Calls body(rows) for stretches of [begin, end), begin a multiple of 16.
  template <typename Body>
  void stretches(int64_t begin, int64_t end, const Body& body) const {
    if (all_ && begin < inside_) {
      const int64_t last = std::min(end, inside_);
      body(TileRows{rows_.bytes + begin * rows_.stride, last - begin, rows_.stride, nullptr,
                    static_cast<uint32_t>(rows_.first + begin),
                    rows_.bias ? rows_.bias + begin : nullptr});
      begin = last;
    }
    if (begin >= end) return;
    const Aligned<uint8_t> bytes(kStage * width_);
    float bias[kStage] = {};
    uint32_t numbers[kStage];
    std::memset(bytes.get(), 0, kStage * width_);
    const int64_t copied = std::min(rows_.stride, width_);
    for (; begin < end; begin += kStage) {
      const int64_t count = std::min(kStage, end - begin);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t row = all_ ? begin + i : chosen_[begin + i];
        if (!all_ && begin + i + 8 < end)
          __builtin_prefetch(rows_.bytes + chosen_[begin + i + 8] * rows_.stride);
        std::memcpy(bytes.get() + i * width_, rows_.bytes + row * rows_.stride, copied);
        if (rows_.bias) bias[i] = rows_.bias[row];
        numbers[i] = static_cast<uint32_t>(rows_.first + row);
      }
      body(TileRows{bytes.get(), count, width_, numbers, 0, rows_.bias ? bias : nullptr});
    }
  }

 private:
  void choose(const Filter& filter) {
    const int64_t last = std::min(rows_.first + rows_.n, 8 * filter.bytes);
    for (int64_t i = rows_.first; i < last;) {
      if (i % 8 == 0 && filter.bits[i / 8] == 0) {
        i += 8;
        continue;
      }
      if (filter.bits[i / 8] >> (i % 8) & 1)
        chosen_.push_back(static_cast<uint32_t>(i - rows_.first));
      ++i;
    }
  }

  const ByteRows& rows_;
  int64_t width_;
  bool all_;
  int64_t inside_ = 0;
  std::vector<uint32_t> chosen_;
};

// Pools of a group's queries, of one thread.
struct Pools {
  std::vector<int32_t> thresholds, keys;
  std::vector<int64_t> sizes;
  std::vector<uint32_t> rows;
};

class Group {
 public:
  Group(const int8_t* codes, int64_t nq, int64_t d, const float* steps, int64_t keep)
      : nq_(nq),
        panels_(ceil_div(nq, 16)),
        width_(round_up(d, 64)),
        keep_(keep),
        packed_(panels_ * 16 * width_),
        corrections_(panels_ * 16),
        steps_(panels_ * 16, 0.0f) {
    std::memset(packed_.get(), 0, panels_ * 16 * width_);
    std::fill_n(corrections_.get(), panels_ * 16, 0);
    for (int64_t q = 0; q < nq; ++q) {
      int8_t* panel = packed_.get() + q / 16 * 16 * width_ + q % 16 * 4;
      int32_t sum = 0;
      for (int64_t j = 0; j < d; ++j) {
        const int8_t code = codes[q * d + j];
        panel[j / 4 * 64 + j % 4] = code;
        sum += code;
      }
      corrections_.get()[q] = -128 * sum;
      steps_[q] = steps[q];
    }
  }

  // Start thresholds: whatever reaches them is welcome.
  std::vector<int32_t> seeds(const Kernels& k, const Source& source, bool is_biased,
                             int threads) const {
    const int64_t lanes = 16 * panels_;
    std::vector<int32_t> out(lanes, std::numeric_limits<int32_t>::max());  // of padding
    std::fill_n(out.begin(), nq_, is_biased ? kOpenBiased : std::numeric_limits<int32_t>::min());
    const int64_t wanted =
        std::max({round_up(4 * 16 * keep_, kRun), kLeastSample, source.size() / kSampleShare});
    const int64_t runs = wanted / kRun;
    if (source.size() < 4 * runs * kRun) return out;
    const int64_t apart = source.size() / runs / 16 * 16, blocks = kRun / 16;
    std::vector<int32_t> highest(runs * blocks * lanes);
    const TileQueries x = queries(nullptr);
    parallel(runs, ceil_div(runs, std::max(threads, 1)), threads, [&](int64_t from, int64_t to) {
      for (int64_t run = from; run < to; ++run)
        source.stretches(run * apart, run * apart + kRun, [&](const TileRows& rows) {
          tiles(k).maxima(rows, x, highest.data() + run * blocks * lanes);
        });
    });
    const int64_t step = ceil_div(panels_, std::max(threads, 1)) * 16;
    parallel(nq_, step, threads, [&](int64_t from, int64_t to) {
      const int64_t n = runs * blocks;
      std::vector<int32_t> column(n);
      for (int64_t q = from; q < to; ++q) {
        for (int64_t b = 0; b < n; ++b) column[b] = highest[b * lanes + q];
        std::nth_element(column.begin(), column.begin() + (keep_ - 1), column.end(),
                         [](int32_t a, int32_t b) { return a > b; });
        out[q] = std::max(out[q], column[keep_ - 1] - 1);
      }
    });
    return out;
  }

  Pools scan(const Kernels& k, const Source& source, const std::vector<int32_t>& seeds,
             int64_t begin, int64_t end) const {
    Pools pools;
    const int64_t lanes = 16 * panels_;
    pools.thresholds = seeds;
    pools.sizes.assign(lanes, 0);
    pools.keys.resize(lanes * capacity());
    pools.rows.resize(lanes * capacity());
    const TileQueries x = queries(&pools);
    source.stretches(begin, end, [&](const TileRows& rows) { tiles(k).scan(rows, x, k); });
    return pools;
  }

  int64_t capacity() const { return pool_room(keep_); }
  static int64_t pool_room(int64_t keep) { return round_up(keep + std::max<int64_t>(keep, 96), 16) + 16; }

 private:
  TileQueries queries(Pools* pools) const {
    TileQueries x{panels_, width_, packed_.get(), corrections_.get(), steps_.data(),
                  keep_,   capacity(), nullptr, nullptr, nullptr, nullptr};
    if (pools) {
      x.thresholds = pools->thresholds.data();
      x.sizes = pools->sizes.data();
      x.keys = pools->keys.data();
      x.rows = pools->rows.data();
    }
    return x;
  }

  int64_t nq_, panels_, width_, keep_;
  Aligned<int8_t> packed_;
  Aligned<int32_t> corrections_;
  std::vector<float> steps_;
};

// The pools of the shares, in order of rows, to the `keep` best of each query.
void join(const Kernels& k, const std::vector<Pools>& shares, int64_t nq, int64_t capacity,
          int64_t keep, int32_t* keys, uint32_t* rows, int64_t* counts) {
  std::vector<int32_t> all_keys(capacity * shares.size());
  std::vector<uint32_t> all_rows(capacity * shares.size());
  for (int64_t q = 0; q < nq; ++q) {
    int64_t n = 0;
    for (const Pools& share : shares) {
      std::copy_n(share.keys.begin() + q * capacity, share.sizes[q], all_keys.begin() + n);
      std::copy_n(share.rows.begin() + q * capacity, share.sizes[q], all_rows.begin() + n);
      n += share.sizes[q];
    }
    int32_t unused;
    n = k.keep_largest(all_keys.data(), all_rows.data(), n, keep, &unused);
    std::copy_n(all_keys.begin(), n, keys + q * keep);
    std::copy_n(all_rows.begin(), n, rows + q * keep);
    counts[q] = n;
  }
}

}  // namespace

const Tiles& tiles([[maybe_unused]] const Kernels& k) {
#ifdef SOARDB_AMX
  if (std::strcmp(k.name, "amx") == 0) return kTilesAmx;
#endif
#ifdef SOARDB_X86
  if (std::strcmp(k.name, "avx512") == 0) return kTilesVnni;
  if (std::strcmp(k.name, "avx2") == 0) return kTilesAvx2;
#endif
  return kTilesScalar;
}

void topk_u8(const Kernels& k, const ByteRows& rows, const int8_t* codes, int64_t nq, int64_t d,
             const float* steps, int64_t keep, const Filter* filter, int threads, int32_t* keys,
             uint32_t* found, int64_t* counts) {
  const Source source(rows, filter, round_up(d, 64));
  const int64_t pool = 8 * Group::pool_room(keep) * std::max(threads, 1);
  const int64_t at_once = std::max<int64_t>(16, std::min(kGroup, kPoolBytes / pool / 16 * 16));
  for (int64_t q = 0; q < nq; q += at_once) {
    const int64_t count = std::min(at_once, nq - q);
    const Group group(codes + q * d, count, d, steps + q, keep);
    const std::vector<int32_t> seeds = group.seeds(k, source, rows.bias != nullptr, threads);
    const int64_t share =
        std::max<int64_t>(kStage, round_up(ceil_div(source.size(), std::max(threads, 1)), kStage));
    std::vector<Pools> shares(std::max<int64_t>(1, ceil_div(source.size(), share)));
    parallel(static_cast<int64_t>(shares.size()), 1, threads, [&](int64_t i, int64_t) {
      shares[i] = group.scan(k, source, seeds, i * share, std::min((i + 1) * share, source.size()));
    });
    join(k, shares, count, group.capacity(), keep, keys + q * keep, found + q * keep, counts + q);
  }
}

void rescore(const Kernels& k, const Kept& vectors, const float* queries, int64_t nq,
             int metric, const uint32_t* rows, const double* bounds, int64_t room,
             const int64_t* counts, const double* rest, int64_t want, int threads, float* scores,
             int64_t* out, uint8_t* proven) {
  constexpr int64_t kAtOnce = 16;
  struct Scored {
    float score;
    uint32_t row;
  };
  const auto better = [](const Scored& a, const Scored& b) {
    return a.score > b.score || (a.score == b.score && a.row < b.row);
  };
  const int64_t d = vectors.d;
  parallel(nq, std::max<int64_t>(1, std::min<int64_t>(32, nq / std::max(threads, 1))), threads,
           [&](int64_t begin, int64_t end) {
    std::vector<int64_t> heap;
    std::vector<Scored> best;
    for (int64_t q = begin; q < end; ++q) {
      const double* most = bounds + q * room;
      const auto lower = [&](int64_t a, int64_t b) { return most[a] < most[b]; };
      heap.resize(counts[q]);
      for (int64_t i = 0; i < counts[q]; ++i) heap[i] = i;
      std::make_heap(heap.begin(), heap.end(), lower);
      best.clear();
      bool is_proven = false;
      while (true) {
        const bool is_full = static_cast<int64_t>(best.size()) == want;
        const double left = heap.empty() ? rest[q] : std::max(most[heap.front()], rest[q]);
        is_proven = (is_full && left < best.back().score) || (heap.empty() && std::isinf(left));
        if (is_proven || heap.empty()) break;
        uint32_t some[kAtOnce];
        int64_t n = 0;
        for (; n < kAtOnce && !heap.empty(); ++n) {
          some[n] = rows[q * room + heap.front()];
          std::pop_heap(heap.begin(), heap.end(), lower);
          heap.pop_back();
        }
        float found[kAtOnce];
        k.score_kept(vectors, n, some, queries + q * d, metric, found);
        for (int64_t i = 0; i < n; ++i) best.push_back({found[i], some[i]});
        const int64_t kept = std::min<int64_t>(want, static_cast<int64_t>(best.size()));
        std::partial_sort(best.begin(), best.begin() + kept, best.end(), better);
        best.resize(kept);
      }
      for (int64_t i = 0; i < want; ++i) {
        const bool is_there = i < static_cast<int64_t>(best.size());
        scores[q * want + i] = is_there ? best[i].score : -std::numeric_limits<float>::infinity();
        out[q * want + i] = is_there ? static_cast<int64_t>(best[i].row) : -1;
      }
      proven[q] = is_proven;
    }
  });
}

void store_error(const float* vectors, int64_t n, int64_t d, const float* mean,
                 const uint8_t* bytes, int64_t stride, const float* scale, const float* offset,
                 int threads, double* out) {
  constexpr int64_t kPiece = 4096;
  std::vector<double> largest(3 * ceil_div(n, kPiece), 0.0);
  parallel(n, kPiece, threads, [&](int64_t begin, int64_t end) {
    double* most = largest.data() + 3 * (begin / kPiece);
    for (int64_t i = begin; i < end; ++i) {
      float error = 0, level = 0, size = 0;
      for (int64_t j = 0; j < d; ++j) {
        const float centred = vectors[i * d + j] - mean[j];
        const float step = static_cast<float>(bytes[i * stride + j]) - 128.0f;
        const float gap = centred - (offset[j] + scale[j] * step);
        error += gap * gap;
        level += step * step;
        size += centred * centred;
      }
      most[0] = std::max<double>(most[0], error);
      most[1] = std::max<double>(most[1], level);
      most[2] = std::max<double>(most[2], size);
    }
  });
  for (int p = 0; p < 3; ++p) {
    double most = 0;
    for (size_t i = p; i < largest.size(); i += 3) most = std::max(most, largest[i]);
    out[p] = std::sqrt(most);
  }
}

}  // namespace soardb
