// Which instruction set runs, and the outer loops that need memory or threads.
//
//   module.cpp -> [dispatch.cpp] -> kernels_<isa>.cpp
//
// Compiled for the oldest CPU of the platform: std:: containers are welcome here and only here.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#ifdef SOARDB_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "soardb/kernels.hpp"

namespace soardb {
namespace {

#ifdef SOARDB_X86
bool cpu_has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
bool cpu_has_avx512() {
  return cpu_has_avx2() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
         __builtin_cpu_supports("avx512vbmi");
}
#endif

#ifdef SOARDB_AMX
// The CPU has the tiles (leaf 7: bits 24 and 25 of edx), the system saves them (XCR0, bits 17 and
// 18) and grants this process their use, which it must be asked for once.
bool cpu_has_amx() {
  static const bool has = [] {
    unsigned a, b, c, d;
    if (!cpu_has_avx512() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    if ((d >> 24 & 3) != 3) return false;
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low >> 17 & 3) != 3) return false;
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return has;
}

// AVX-512 with the tiles of tiles_amx.cpp and assign_amx.cpp beside it.
const Kernels& amx() {
  static const Kernels level = [] {
    Kernels copy = kAvx512;
    copy.name = "amx";
    return copy;
  }();
  return level;
}
#endif

const Kernels* find_level(const char* name) {
  if (std::strcmp(name, "scalar") == 0) return &kScalar;
#ifdef SOARDB_X86
  if (std::strcmp(name, "avx2") == 0 && cpu_has_avx2()) return &kAvx2;
  if (std::strcmp(name, "avx512") == 0 && cpu_has_avx512()) return &kAvx512;
#endif
#ifdef SOARDB_AMX
  if (std::strcmp(name, "amx") == 0 && cpu_has_amx()) return &amx();
#endif
#ifdef SOARDB_NEON
  if (std::strcmp(name, "neon") == 0) return &kNeon;
#endif
  return nullptr;
}

const Kernels* best_level() {
  for (const char* name : {"amx", "avx512", "avx2", "neon"})
    if (const Kernels* found = find_level(name)) return found;
  return &kScalar;
}

const Kernels*& current() {
  static const Kernels* level = best_level();
  return level;
}

// Memory of the calling thread, cut into the parts of a Scratch; grows, is zeroed when it grows.
class Arena {
 public:
  template <typename T>
  void reserve(T*& part, int64_t count) {
    parts_.push_back({reinterpret_cast<void**>(&part), total_});
    total_ += round_up(count * static_cast<int64_t>(sizeof(T)) + 64, 64);
  }
  void bind() {
    // Taken out first: an allocation that fails must not be asked for again by the next search.
    const auto parts = std::exchange(parts_, {});
    const int64_t total = std::exchange(total_, 0);
    if (total > size_) {
      memory_.reset(static_cast<char*>(::operator new(total, std::align_val_t{64})));
      std::memset(memory_.get(), 0, total);
      size_ = total;
    }
    for (const auto& [part, offset] : parts) *part = memory_.get() + offset;
  }

 private:
  struct Free {
    void operator()(char* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  std::unique_ptr<char, Free> memory_;
  std::vector<std::pair<void**, int64_t>> parts_;
  int64_t total_ = 0, size_ = 0;
};

struct Fitted {
  Arena arena;
  Scratch scratch{};
  int64_t d = -1, extended = -1, nslot = -1, m = -1, collect = -1;
};

Scratch& fit(const Ivf& x, const Plan& plan) {
  thread_local Fitted f;
  const int64_t extended = std::max<int64_t>(std::max<int64_t>(x.d, x.nturned) + 2, x.block_dims[x.m]);
  const int64_t slots = std::max(x.nslot, round_up(x.ncell, kBlock)) + 64;
  const int64_t collect = std::max(plan.collect, plan.k);
  if (f.d == x.d && f.extended == extended && f.nslot == slots && f.m == x.m &&
      f.collect == collect)
    return f.scratch;
  Scratch& s = f.scratch;
  Arena& a = f.arena;
  const int64_t wide = round_up(extended, 64) + 64;
  s.pool = pool_capacity(collect);
  s.nslots = slots;
  s.hash_size = 64;
  while (s.hash_size < 2 * collect) s.hash_size *= 2;
  a.reserve(s.query, wide);
  a.reserve(s.centred, wide);
  a.reserve(s.coded, wide);
  a.reserve(s.centroid_query, wide);
  a.reserve(s.store_query, wide);
  a.reserve(s.coded_query, wide);
  a.reserve(s.slot_scores, slots);
  a.reserve(s.slot_keys, slots);
  a.reserve(s.slot_ids, slots);
  a.reserve(s.order, slots);
  a.reserve(s.order_scores, slots);
  a.reserve(s.steps, slots);
  a.reserve(s.tables, 16 * x.m);
  a.reserve(s.lows, x.m);
  a.reserve(s.lut, 16 * x.m);
  const int64_t blocks = kQueue + kAhead + 2;
  a.reserve(s.block_codes, blocks);
  a.reserve(s.block_bias, blocks);
  a.reserve(s.block_first, blocks);
  a.reserve(s.block_lanes, blocks);
  a.reserve(s.keys, s.pool);
  a.reserve(s.sort_keys, std::max({slots, s.pool, x.nturned}));
  a.reserve(s.slots, s.pool);
  a.reserve(s.rows, s.pool);
  a.reserve(s.hash_rows, s.hash_size);
  a.reserve(s.hash_places, s.hash_size);
  a.reserve(s.rough, s.pool);
  f.d = -1;  // not fitted, should the allocation fail
  a.bind();
  f.d = x.d;
  f.extended = extended;
  f.nslot = slots;
  f.m = x.m;
  f.collect = collect;
  return s;
}

constexpr int64_t kExtraCandidates = 16;
constexpr int64_t kRowQueries = 4;       // below this a batch is scored row by row
constexpr int64_t kQueryChunk = 1024;    // queries whose pools are held at once
constexpr int64_t kPoolBytes = 64 << 20; // and what these pools may take where k is large
constexpr int64_t kRowChunk = 2048;      // rows packed at once

// Score the candidates of one query again and write its k best.
void finish_topk(const Kernels& k, const float* vectors, int64_t d, const float* query, int metric,
                 int64_t want, const uint32_t* rows, int64_t n, float* scores, int64_t* out) {
  std::vector<float> exact(n);
  std::vector<int64_t> order(n);
  k.score_f32(vectors, n, d, rows, query, metric, exact.data());
  for (int64_t i = 0; i < n; ++i) order[i] = i;
  const auto before = [&](int64_t a, int64_t b) {
    return exact[a] > exact[b] || (exact[a] == exact[b] && rows[a] < rows[b]);
  };
  std::partial_sort(order.begin(), order.begin() + want, order.end(), before);
  for (int64_t i = 0; i < want; ++i) {
    scores[i] = exact[order[i]];
    out[i] = rows[order[i]];
  }
}

void exact_topk_some(const Kernels& k, const float* vectors, int64_t n, int64_t d,
                     const float* queries, int64_t nq, int metric, int64_t want, float* scores,
                     int64_t* rows) {
  const int64_t keep = std::min(want + kExtraCandidates, n), capacity = pool_capacity(keep);
  if (nq < kRowQueries) {
    std::vector<int32_t> keys(capacity);
    std::vector<uint32_t> found(capacity);
    for (int64_t q = 0; q < nq; ++q) {
      const int64_t count = k.exact_topk_row(vectors, n, d, queries + q * d, metric, keep, capacity,
                                             keys.data(), found.data());
      finish_topk(k, vectors, d, queries + q * d, metric, want, found.data(), count,
                  scores + q * want, rows + q * want);
    }
    return;
  }
  std::vector<int32_t> keys(nq * capacity), thresholds(nq, INT32_MIN);
  std::vector<uint32_t> found(nq * capacity);
  std::vector<int64_t> counts(nq, 0);
  std::vector<float> panels(kRowChunk * d);
  for (int64_t first = 0; first < n; first += kRowChunk) {
    const int64_t count = std::min(kRowChunk, n - first);
    pack_panels(vectors + first * d, count, d, panels.data());
    k.exact_topk_block(panels.data(), count, first, d, queries, nq, metric, keep, capacity,
                       keys.data(), found.data(), counts.data(), thresholds.data());
  }
  for (int64_t q = 0; q < nq; ++q) {
    int32_t threshold;
    const int64_t count = k.keep_largest(keys.data() + q * capacity, found.data() + q * capacity,
                                         counts[q], keep, &threshold);
    finish_topk(k, vectors, d, queries + q * d, metric, want, found.data() + q * capacity, count,
                scores + q * want, rows + q * want);
  }
}

}  // namespace

void pack_panels(const float* vectors, int64_t n, int64_t d, float* panels) {
  for (int64_t c = 0; c < n; c += kPanel) {
    float* panel = panels + c * d;
    const int64_t count = std::min(kPanel, n - c);
    if (count < kPanel) std::fill(panel, panel + kPanel * d, 0.0f);
    for (int64_t j = 0; j < count; ++j) {
      const float* vector = vectors + (c + j) * d;
      for (int64_t i = 0; i < d; ++i) panel[i * kPanel + j] = vector[i];
    }
  }
}

const Kernels& kernels() { return *current(); }
bool has_level(const char* name) { return find_level(name) != nullptr; }
bool use_level(const char* name) {
  const Kernels* found = find_level(name);
  if (found) current() = found;
  return found != nullptr;
}

TileProducts tile_products(const Kernels& k) {
#ifdef SOARDB_AMX
  if (std::strcmp(k.name, "amx") == 0) return amx_products;
#endif
  (void)k;
  return nullptr;
}

const char* cpu_features() {
  static const std::string features = [] {
    std::string text;
#ifdef SOARDB_X86
    __builtin_cpu_init();
#define SOARDB_FEATURE(name) \
  if (__builtin_cpu_supports(name)) text += (text.empty() ? "" : " ") + std::string(name);
    SOARDB_FEATURE("sse4.2")
    SOARDB_FEATURE("avx2")
    SOARDB_FEATURE("fma")
    SOARDB_FEATURE("bmi2")
    SOARDB_FEATURE("avx512f")
    SOARDB_FEATURE("avx512bw")
    SOARDB_FEATURE("avx512dq")
    SOARDB_FEATURE("avx512vl")
    SOARDB_FEATURE("avx512vnni")
    SOARDB_FEATURE("avx512vbmi")
#undef SOARDB_FEATURE
#endif
#ifdef SOARDB_AMX
    if (cpu_has_amx()) text += " amx-int8";
#endif
#ifdef SOARDB_NEON
    text = "neon";
#endif
    return text;
  }();
  return features.c_str();
}

int64_t ivf_search(const Kernels& k, const Ivf& index, const Plan& plan, const float* queries,
                   int64_t nq, int threads, float* scores, int64_t* ids, const Filter* filter,
                   int64_t* scanned) {
  const auto one = [&](int64_t q) {
    int64_t count = 0;
    const int status =
        k.ivf_search(index, plan, filter, queries + q * index.d, fit(index, plan),
                     scores + q * plan.k, ids + q * plan.k, &count);
    if (scanned) scanned[q] = count;
    return status;
  };
  if (nq == 1) {
    const int status = one(0);
    return status ? status : (ids[plan.k - 1] < 0 ? -1 : 0);
  }
  std::vector<uint8_t> status(nq, kOk);
  const int64_t share = list_major_share(index, plan, nq, threads);
  if (share) {
    parallel(nq, share, threads, [&](int64_t begin, int64_t end) {
      search_list_major(k, index, plan, filter, queries + begin * index.d, end - begin,
                        fit(index, plan), scores + begin * plan.k, ids + begin * plan.k,
                        status.data() + begin, scanned ? scanned + begin : nullptr);
    });
  } else {
    parallel(nq, std::max<int64_t>(1, std::min<int64_t>(64, nq / std::max(threads, 1))), threads,
             [&](int64_t begin, int64_t end) {
               for (int64_t q = begin; q < end; ++q) status[q] = static_cast<uint8_t>(one(q));
             });
  }
  for (int64_t q = 0; q < nq; ++q)
    if (status[q]) return q * 4 + status[q];
  for (int64_t q = 0; q < nq; ++q)
    if (ids[q * plan.k + plan.k - 1] < 0) return -1;
  return 0;
}

void exact_topk(const Kernels& k, const float* vectors, int64_t n, int64_t d, const float* queries,
                int64_t nq, int metric, int64_t want, int threads, float* scores, int64_t* rows) {
  const int64_t share = ceil_div(nq, std::max(threads, 1));
  const int64_t room = kPoolBytes / (8 * pool_capacity(std::min(want + kExtraCandidates, n)));
  parallel(nq, std::max<int64_t>(1, std::min({kQueryChunk, share, room})), threads,
           [&](int64_t begin, int64_t end) {
             exact_topk_some(k, vectors, n, d, queries + begin * d, end - begin, metric, want,
                             scores + begin * want, rows + begin * want);
           });
}

void encode(const Kernels& k, const float* residuals, const float* directions, const float* eta,
            int64_t n, int64_t d, const float* codebook, int64_t m, int64_t width,
            const int32_t* block_dims, int threads, uint8_t* out) {
  parallel(n, 1024, threads, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(33 * m + 16);
    k.encode(residuals + begin * d, directions + begin * d, eta + begin, end - begin, d, codebook,
             m, width, block_dims, scratch.data(), out + begin * m);
  });
}

}  // namespace soardb
