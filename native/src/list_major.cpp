// A batch by the lists, in the order of the lists: what goes on around list_major.inl.
//
//   dispatch.cpp -> [list_major.cpp] -> kernels.hpp (prepare_lists, scan_piece, finish_lists)
//
// A list's codes come from memory once for all queries that visit it, and are looked up from the
// first-level cache. What a query costs more is its pool, tables and visits being kept meanwhile.
#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "soardb/kernels.hpp"

namespace soardb {
namespace {

constexpr int64_t kListBatch = 512;        // queries that go through the lists together
constexpr int64_t kVisits = 12;            // queries a list, from which on that pays
constexpr int64_t kPieceBytes = 16 << 10;  // codes that stay in the first-level cache

}  // namespace

int64_t list_major_share(const Ivf& x, const Plan& plan, int64_t nq, int threads) {
  const int64_t share = std::min(kListBatch, ceil_div(nq, std::max(threads, 1)));
  // A search that passes lists over must see them in order.
  if (plan.stop < std::numeric_limits<float>::infinity()) return 0;
  return plan.nprobe > 2 * kFirstLook && share * plan.nprobe >= kVisits * x.nlist ? share : 0;
}

void search_list_major(const Kernels& k, const Ivf& x, const Plan& plan, const Filter* filter,
                       const float* queries, int64_t nq, Scratch& s, float* scores, int64_t* ids,
                       uint8_t* status, int64_t* scanned) {
  const int64_t d = round_up(x.d, 16), nprobe = std::min(plan.nprobe, x.nslot), capacity = s.pool;
  const int64_t bytes = round_up(16 * x.m, 64);
  std::vector<float> floats(nq * 2 * d);
  std::vector<uint8_t> tables(nq * bytes + 64);
  std::vector<int32_t> numbers(nq * 2 * nprobe), keys(nq * capacity);
  std::vector<uint32_t> slots(nq * capacity);
  uint8_t* luts = tables.data() + (64 - reinterpret_cast<uintptr_t>(tables.data()) % 64) % 64;
  std::vector<ListQuery> all(nq);
  std::vector<int32_t> visits(x.nlist + 1, 0);
  const auto lead = [&](const ListQuery& q) { return std::min(q.nlists, kFirstLook); };
  const auto codes_of = [&](int32_t list, bool is_delta) -> int64_t {
    return is_delta ? (x.delta_start ? x.delta_count[list] : 0) : x.list_count[list];
  };
  for (int64_t i = 0; i < nq; ++i) {
    ListQuery& q = all[i];
    q.query = floats.data() + i * 2 * d;
    q.centred = q.query + d;
    q.lut = luts + i * bytes;
    q.lists = numbers.data() + i * 2 * nprobe;
    q.biases = q.lists + nprobe;
    q.keys = keys.data() + i * capacity;
    q.slots = slots.data() + i * capacity;
    q.nlists = 0;
    status[i] = static_cast<uint8_t>(k.prepare_lists(x, plan, queries + i * x.d, s, q));
    if (status[i]) continue;
    for (int64_t j = 0; j < lead(q); ++j)
      for (const bool is_delta : {false, true})
        if (const int64_t n = codes_of(q.lists[j], is_delta))
          k.scan_piece(x, plan, filter, q, q.lists[j], q.biases[j], capacity, is_delta, 0, n, s);
    for (int64_t j = lead(q); j < q.nlists; ++j) ++visits[q.lists[j] + 1];
  }
  for (int64_t i = 0; i < x.nlist; ++i) visits[i + 1] += visits[i];
  std::vector<std::pair<int32_t, int32_t>> who(visits[x.nlist]);  // (query, bias) by list
  std::vector<int32_t> at(visits.begin(), visits.end() - 1);
  for (int64_t i = 0; i < nq; ++i)
    for (int64_t j = lead(all[i]); j < all[i].nlists; ++j)
      who[at[all[i].lists[j]]++] = {static_cast<int32_t>(i), all[i].biases[j]};
  const int64_t piece = std::max<int64_t>(2 * kBlock, kPieceBytes / (x.m / 8 * kLine) * kBlock);
  for (int64_t list = 0; list < x.nlist; ++list)
    for (const bool is_delta : {false, true}) {
      const int64_t n = visits[list] < visits[list + 1] ? codes_of(list, is_delta) : 0;
      for (int64_t from = 0; from < n; from += piece)
        for (int32_t v = visits[list]; v < visits[list + 1]; ++v)
          k.scan_piece(x, plan, filter, all[who[v].first], list, who[v].second, capacity, is_delta,
                       from, std::min(from + piece, n), s);
    }
  for (int64_t i = 0; i < nq; ++i) {
    if (status[i]) continue;
    k.finish_lists(x, plan, all[i], s, scores + i * plan.k, ids + i * plan.k);
    if (scanned) scanned[i] = all[i].scanned;
  }
}

}  // namespace soardb
