// Every kernel of an instruction set against plain C++, on random inputs and without Python.
//
//   native/ (soardb_kernels) -> [kernel_tests.cpp] <- run.sh: cross-compiled and emulated, or native
//
//   kernel_tests                all levels of this machine
//   kernel_tests neon           this level, and an error where it cannot be had
//
// Integers, scores and whole answers are compared bit for bit. The matrix kernels may round
// differently: they are compared bit for bit on whole numbers and by their cost on others. That the
// plain level itself is right is what tests/kernels says, against NumPy.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "soardb/assigner.hpp"
#include "soardb/kernels.hpp"
#include "soardb/topk.hpp"

using namespace soardb;

namespace {

int passed = 0, failed = 0;

void check(const Kernels& level, const std::string& what, bool holds) {
  std::printf("%s %s %s\n", holds ? "ok  " : "FAIL", level.name, what.c_str());
  ++(holds ? passed : failed);
}

template <typename T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || !std::memcmp(a.data(), b.data(), a.size() * sizeof(T)));
}

// ---------------------------------------------------------------- random inputs

std::mt19937 generator(20240404);

int64_t below(int64_t n) { return static_cast<int64_t>(generator() % static_cast<uint32_t>(n)); }

std::vector<uint8_t> bytes(int64_t n) {
  std::vector<uint8_t> out(n);
  for (uint8_t& x : out) x = static_cast<uint8_t>(generator());
  return out;
}
std::vector<int8_t> query_bytes(int64_t n) {
  std::vector<int8_t> out(n);
  for (int8_t& x : out) x = static_cast<int8_t>(below(255) - 127);
  return out;
}
std::vector<float> floats(int64_t n) {
  std::normal_distribution<float> normal;
  std::vector<float> out(n);
  for (float& x : out) x = normal(generator);
  return out;
}
// Whole numbers are added and multiplied without rounding, and tie often.
std::vector<float> whole(int64_t n) {
  std::vector<float> out(n);
  for (float& x : out) x = static_cast<float>(below(5) - 2);
  return out;
}
std::vector<uint32_t> some_rows(int64_t count, int64_t n) {
  std::vector<uint32_t> out(count);
  for (uint32_t& x : out) x = static_cast<uint32_t>(below(n));
  return out;
}

// Byte tables at a multiple of 64 bytes, as the kernels want them.
struct Tables {
  explicit Tables(int64_t m) : size(16 * m), data(new (std::align_val_t{64}) uint8_t[16 * m]) {}
  Tables(const Tables&) = delete;
  Tables& operator=(const Tables&) = delete;
  ~Tables() { ::operator delete[](data, std::align_val_t{64}); }
  int64_t size;
  uint8_t* data;
};

// ---------------------------------------------------------------- the kernels one by one

void lut16(const Kernels& k) {
  for (int64_t m : {8, 16, 56, 96, 264, 512, 520, 1024, 2048}) {
    bool sums_agree = true, topk_agrees = true;
    for (const char* kind : {"random", "full", "few"}) {
      Tables lut(m);
      for (int64_t i = 0; i < lut.size; ++i)
        lut.data[i] = static_cast<uint8_t>(*kind == 'f' ? (kind[1] == 'u' ? 255 : below(99) == 0)
                                                        : below(256));
      for (int64_t n : {0, 1, 15, 16, 17, 31, 32, 33, 1000}) {
        // One byte off, so that nothing rests on aligned codes.
        std::vector<uint8_t> codes = bytes(round_up(n, kBlock) * m / 2 + 1);
        if (kind[1] == 'u') std::fill(codes.begin(), codes.end(), 255);
        std::vector<int32_t> expected(n), sums(n);
        kScalar.lut16_sums(codes.data() + 1, n, m, lut.data, expected.data());
        k.lut16_sums(codes.data() + 1, n, m, lut.data, sums.data());
        sums_agree = sums_agree && same(sums, expected);
        for (int64_t keep : {1, 10, 100, 2000}) {
          const int64_t room = pool_capacity(keep);
          std::vector<int32_t> keys(room), expected_keys(room);
          std::vector<uint32_t> places(room), expected_places(room);
          const int32_t bias = static_cast<int32_t>(below(1 << 30) - (1 << 29));
          const int64_t found = k.lut16_topk(codes.data() + 1, n, m, lut.data, bias, keep, room,
                                             keys.data(), places.data());
          const int64_t wanted =
              kScalar.lut16_topk(codes.data() + 1, n, m, lut.data, bias, keep, room,
                                 expected_keys.data(), expected_places.data());
          keys.resize(found), places.resize(found);
          expected_keys.resize(wanted), expected_places.resize(wanted);
          topk_agrees =
              topk_agrees && same(keys, expected_keys) && same(places, expected_places);
        }
      }
    }
    check(k, "lut16_sums m=" + std::to_string(m), sums_agree);
    check(k, "lut16_topk m=" + std::to_string(m), topk_agrees);
  }
}

const std::vector<int64_t> kDims = {1, 2, 7, 8, 15, 16, 17, 31, 64, 100, 128, 768, 4096};

void byte_rows(const Kernels& k) {
  for (int64_t d : kDims) {
    bool dots_agree = true, blocks_agree = true;
    for (bool full : {false, true}) {
      const int64_t stride = round_up(d, 4), n = 37, quads = ceil_div(d, 4);
      std::vector<uint8_t> rows = bytes(n * stride + 1), blocks = bytes(5 * quads * kLine + 1);
      std::vector<int8_t> query = query_bytes(4 * quads);
      if (full) {
        std::fill(rows.begin(), rows.end(), 255);
        std::fill(blocks.begin(), blocks.end(), 0);
        std::fill(query.begin(), query.end(), 127);
      }
      const std::vector<uint32_t> chosen = some_rows(50, n);
      std::vector<int32_t> all(n), every(n), some(50), those(50), scores(80), products(80);
      k.dot_u8(rows.data() + 1, n, stride, nullptr, query.data(), d, all.data());
      kScalar.dot_u8(rows.data() + 1, n, stride, nullptr, query.data(), d, every.data());
      k.dot_u8(rows.data() + 1, 50, stride, chosen.data(), query.data(), d, some.data());
      kScalar.dot_u8(rows.data() + 1, 50, stride, chosen.data(), query.data(), d, those.data());
      dots_agree = dots_agree && same(all, every) && same(some, those);
      for (int64_t nblock : {0, 1, 5}) {
        k.score_blocks_u8(blocks.data() + 1, nblock, quads, query.data(), scores.data());
        kScalar.score_blocks_u8(blocks.data() + 1, nblock, quads, query.data(), products.data());
        blocks_agree = blocks_agree && same(scores, products);
      }
    }
    check(k, "dot_u8 d=" + std::to_string(d), dots_agree);
    check(k, "score_blocks_u8 d=" + std::to_string(d), blocks_agree);
  }
}

void float_rows(const Kernels& k) {
  for (int64_t d : kDims) {
    const int64_t n = 37;
    const std::vector<float> rows = floats(n * d + 1), query = floats(d);
    const std::vector<uint32_t> chosen = some_rows(50, n);
    bool agree = true;
    for (int metric : {kDot, kCosine, kL2}) {
      std::vector<float> all(n), every(n), some(50), those(50);
      k.score_f32(rows.data() + 1, n, d, nullptr, query.data(), metric, all.data());
      kScalar.score_f32(rows.data() + 1, n, d, nullptr, query.data(), metric, every.data());
      k.score_f32(rows.data() + 1, 50, d, chosen.data(), query.data(), metric, some.data());
      kScalar.score_f32(rows.data() + 1, 50, d, chosen.data(), query.data(), metric, those.data());
      agree = agree && same(all, every) && same(some, those);
    }
    check(k, "score_f32 d=" + std::to_string(d), agree);
  }
}

// Rows of each form, the last of them in the delta, against the same rows as float32; under cosine,
// where they are divided by their length, against the plain level.
void kept_rows(const Kernels& k) {
  for (int64_t d : kDims) {
    const int64_t n = 37, n_base = 20, stride = d + 3;
    const std::vector<float> query = floats(d), scale = floats(d), offset = floats(d);
    const std::vector<uint32_t> chosen = some_rows(50, n);
    const std::vector<uint8_t> levels = bytes(n * stride);
    std::vector<uint16_t> halves(n * d);
    std::vector<float> from_halves(n * d), from_bytes(n * d);
    for (int64_t i = 0; i < n * d; ++i) {
      const float x = floats(1)[0];
      uint32_t bits;
      std::memcpy(&bits, &x, 4);
      halves[i] = static_cast<uint16_t>(bits >> 16);
      bits &= 0xFFFF0000u;
      std::memcpy(&from_halves[i], &bits, 4);
      const float level = static_cast<float>(levels[i / d * stride + i % d]) - 128.0f;
      const float scaled = scale[i % d] * level;
      from_bytes[i] = offset[i % d] + scaled;
    }
    const auto tail = [&](const auto& rows, int64_t step) { return rows.data() + n_base * step; };
    const Kept bfloat16{kBfloat16, halves.data(), tail(halves, d), n_base, d, d};
    const Kept int8{kInt8, levels.data(), tail(levels, stride), n_base, d,
                    stride, scale.data(), offset.data()};
    bool agree = true;
    for (const Kept& rows : {bfloat16, int8}) {
      std::vector<float> found(50), wanted(50);
      k.score_kept(rows, 50, chosen.data(), query.data(), kCosine, found.data());
      kScalar.score_kept(rows, 50, chosen.data(), query.data(), kCosine, wanted.data());
      agree = agree && same(found, wanted);
    }
    for (int metric : {kDot, kL2}) {
      std::vector<float> found(50), wanted(50);
      k.score_kept(bfloat16, 50, chosen.data(), query.data(), metric, found.data());
      kScalar.score_f32(from_halves.data(), 50, d, chosen.data(), query.data(), metric,
                        wanted.data());
      agree = agree && same(found, wanted);
      k.score_kept(int8, 50, chosen.data(), query.data(), metric, found.data());
      kScalar.score_f32(from_bytes.data(), 50, d, chosen.data(), query.data(), metric,
                        wanted.data());
      agree = agree && same(found, wanted);
    }
    check(k, "score_kept d=" + std::to_string(d), agree);
  }
}

void selection(const Kernels& k) {
  bool agree = true;
  for (int64_t range : {3ll, 1000ll, 1ll << 31})
    for (int64_t n : {0, 1, 15, 16, 17, 100, 1000})
      for (int64_t keep : {0, 1, 16, 99, 999, 2000}) {
        std::vector<int32_t> keys(n);
        for (int32_t& key : keys) key = static_cast<int32_t>(below(range) - range / 2);
        if (n > 1) keys[0] = INT32_MAX, keys[1] = INT32_MIN;
        std::vector<uint32_t> values(n);
        std::iota(values.begin(), values.end(), 7u);
        std::vector<int32_t> expected_keys = keys;
        std::vector<uint32_t> expected_values = values;
        int32_t threshold = 0, expected_threshold = 0;
        const int64_t kept = k.keep_largest(keys.data(), values.data(), n, keep, &threshold);
        const int64_t wanted = kScalar.keep_largest(expected_keys.data(), expected_values.data(),
                                                    n, keep, &expected_threshold);
        agree = agree && kept == wanted && threshold == expected_threshold;
        keys.resize(kept), values.resize(kept);
        expected_keys.resize(wanted), expected_values.resize(wanted);
        agree = agree && same(keys, expected_keys) && same(values, expected_values);
      }
  check(k, "keep_largest", agree);
}

void exact_search(const Kernels& k) {
  for (int64_t d : {1, 7, 31, 100}) {
    bool rows_agree = true, blocks_agree = true, close = true;
    const int64_t n = 2500, want = 10;
    for (int metric : {kDot, kCosine, kL2})
      for (bool is_whole : {true, false}) {
        const std::vector<float> vectors = is_whole ? whole(n * d) : floats(n * d);
        const std::vector<float> queries = is_whole ? whole(9 * d) : floats(9 * d);
        for (int64_t nq : {1, 9}) {  // row by row, and by blocks
          std::vector<float> scores(nq * want), expected(nq * want);
          std::vector<int64_t> rows(nq * want), expected_rows(nq * want);
          exact_topk(k, vectors.data(), n, d, queries.data(), nq, metric, want, 1, scores.data(),
                     rows.data());
          exact_topk(kScalar, vectors.data(), n, d, queries.data(), nq, metric, want, 1,
                     expected.data(), expected_rows.data());
          const bool equal = same(scores, expected) && same(rows, expected_rows);
          if (nq == 1) rows_agree = rows_agree && equal;
          if (nq > 1 && is_whole) blocks_agree = blocks_agree && equal;
          for (int64_t i = 0; i < nq * want; ++i)
            close = close && std::abs(scores[i] - expected[i]) <= 1e-5f * (1 + std::abs(expected[i]));
        }
      }
    check(k, "exact_topk_row d=" + std::to_string(d), rows_agree);
    check(k, "exact_topk_block, whole numbers, d=" + std::to_string(d), blocks_agree);
    check(k, "exact_topk_block to 1e-5, d=" + std::to_string(d), close);
  }
}

double square_distance(const float* a, const float* b, int64_t d) {
  double sum = 0;
  for (int64_t i = 0; i < d; ++i) sum += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
  return sum;
}

double spill_cost(const float* x, const float* primary, const float* c, int64_t d, double lambda) {
  const double norm = std::sqrt(square_distance(x, primary, d));
  double along = 0;
  for (int64_t i = 0; i < d; ++i) along += (double(x[i]) - primary[i]) * (double(x[i]) - c[i]);
  double whole = 0;
  for (int64_t i = 0; i < d; ++i) whole += double(x[i]) * x[i];
  along = norm * norm <= 1e-7 * whole ? 0 : along / norm;
  return square_distance(x, c, d) + lambda * along * along;
}

void partitions(const Kernels& k) {
  for (int64_t d : {1, 2, 7, 31, 100, 768})
    for (bool is_whole : {true, false}) {
      const int64_t n = 61, nlist = 75;
      const std::vector<float> x = is_whole ? whole(n * d) : floats(n * d);
      const std::vector<float> c = is_whole ? whole(nlist * d) : floats(nlist * d);
      std::vector<int32_t> lists(n), expected(n), spilled(n), expected_spilled(n);
      std::vector<float> scores(n), expected_scores(n);
      const Assigner assigner(c.data(), nlist, d);
      assigner.assign(k, x.data(), n, 1, lists.data(), scores.data());
      assigner.assign(kScalar, x.data(), n, 1, expected.data(), expected_scores.data());
      const std::string about = (is_whole ? ", whole numbers, d=" : " to 1e-5, d=") +
                                std::to_string(d);
      bool nearest = is_whole ? same(lists, expected) && same(scores, expected_scores) : true;
      for (int64_t i = 0; i < n; ++i)
        nearest = nearest && square_distance(&x[i * d], &c[lists[i] * d], d) <=
                                 square_distance(&x[i * d], &c[expected[i] * d], d) + 1e-5 * d;
      check(k, "assign" + about, nearest);
      bool cheapest = true;
      for (bool include_primary : {true, false}) {
        assigner.spill(k, x.data(), n, expected.data(), 1.5f, include_primary, 1, spilled.data());
        assigner.spill(kScalar, x.data(), n, expected.data(), 1.5f, include_primary, 1,
                       expected_spilled.data());
        for (int64_t i = 0; i < n; ++i) {
          const float* primary = &c[expected[i] * d];
          const auto cost = [&](int32_t list) {
            return spill_cost(&x[i * d], primary, &c[list * d], d, 1.5);
          };
          cheapest = cheapest && cost(spilled[i]) <= cost(expected_spilled[i]) + 1e-5 * d &&
                     (include_primary || spilled[i] != expected[i]);
        }
      }
      check(k, "spill_assign to 1e-5, d=" + std::to_string(d), cheapest);
    }
}

std::vector<int32_t> split_dims(int64_t d, int64_t m) {
  std::vector<int32_t> bounds(m + 1);
  for (int64_t b = 0; b <= m; ++b) bounds[b] = static_cast<int32_t>(b * d / m);
  return bounds;
}

void encoding(const Kernels& k) {
  const int64_t shapes[][2] = {{1, 8}, {2, 8}, {7, 8}, {31, 16}, {100, 56}, {128, 264}, {768, 192}};
  for (const auto& [d, m] : shapes)
    for (bool is_whole : {true, false}) {
      const int64_t n = 25, width = ceil_div(d, m);
      const std::vector<int32_t> bounds = split_dims(d, m);
      const std::vector<float> residuals = is_whole ? whole(n * d) : floats(n * d);
      const std::vector<float> codebook = is_whole ? whole(m * width * 16) : floats(m * width * 16);
      std::vector<float> directions = floats(n * d), eta(n);
      for (int64_t i = 0; i < n; ++i) {
        const std::vector<float> zero(d);
        const double norm = std::sqrt(square_distance(&directions[i * d], zero.data(), d));
        for (int64_t j = 0; j < d; ++j)
          directions[i * d + j] = static_cast<float>(directions[i * d + j] / norm);
        eta[i] = i % 3 ? 3.0f * static_cast<float>(i) : 1.0f;
      }
      std::vector<uint8_t> codes(n * m), expected(n * m);
      encode(k, residuals.data(), directions.data(), eta.data(), n, d, codebook.data(), m, width,
             bounds.data(), 1, codes.data());
      encode(kScalar, residuals.data(), directions.data(), eta.data(), n, d, codebook.data(), m,
             width, bounds.data(), 1, expected.data());
      check(k, std::string("encode") + (is_whole ? ", whole numbers," : "") +
                   " d=" + std::to_string(d) + " m=" + std::to_string(m),
            same(codes, expected));
    }
}

// ---------------------------------------------------------------- the fused query

// Lists one after the other, with random codes of m sub-spaces.
struct Arena {
  std::vector<int64_t> start;
  std::vector<int32_t> count;
  std::vector<uint8_t> codes;
  std::vector<uint32_t> rows;

  void add_list(const std::vector<uint32_t>& list_rows, int64_t m) {
    start.push_back(static_cast<int64_t>(rows.size()) / kBlock);
    count.push_back(static_cast<int32_t>(list_rows.size()));
    rows.insert(rows.end(), list_rows.begin(), list_rows.end());
    rows.resize(round_up(static_cast<int64_t>(rows.size()), kBlock), UINT32_MAX);
    const std::vector<uint8_t> packed =
        bytes(round_up(static_cast<int64_t>(list_rows.size()), kBlock) * m / 2);
    codes.insert(codes.end(), packed.begin(), packed.end());
  }
};

// A random index; the arrays are those of soardb/kernels/layout.py.
struct Index {
  std::vector<float> vectors, mean, centroid_bias, centroid_scale, centroid_offset, cell_bias,
      codebook, store_scale, store_bias, rotation_scale;
  std::vector<int64_t> ids;
  std::vector<uint8_t> centroid_codes, cell_codes, store, rotation_codes;
  std::vector<int32_t> slot_list, cell_start, block_dims;
  Arena base, delta;
  Ivf view;
};

// Rows from n_base on stand in the delta, where there are any. With cells comes a rotation, into half
// as many dimensions.
Index make_index(int metric, int64_t n, int64_t n_base, int64_t d, int64_t m, int64_t nlist,
                 int64_t ncell, bool is_spilled, bool is_whole) {
  const auto numbers = [&](int64_t count) { return is_whole ? whole(count) : floats(count); };
  const float infinity = std::numeric_limits<float>::infinity();
  const int64_t quads = ceil_div(d, 4), stride = round_up(d, 4);
  Index x;
  x.vectors = numbers(n * d);
  x.mean = metric == kL2 ? numbers(d) : std::vector<float>(d);
  x.ids.resize(n);
  std::iota(x.ids.begin(), x.ids.end(), int64_t{1} << 40);
  std::shuffle(x.ids.begin(), x.ids.end(), generator);

  // Cells of blocks of 16 slots; the first 13 slots of a block have a centroid, until all are placed.
  const int64_t nblock = ceil_div(nlist, 13), nslot = nblock * kBlock;
  x.slot_list.assign(nslot, -1);
  x.centroid_bias.assign(nslot, -infinity);
  const std::vector<float> biases = numbers(nslot);
  for (int64_t list = 0; list < nlist; ++list) {
    const int64_t slot = list / 13 * kBlock + list % 13;
    x.slot_list[slot] = static_cast<int32_t>(nlist - 1 - list);
    x.centroid_bias[slot] = metric == kL2 ? biases[slot] : 0.0f;
  }
  x.centroid_codes = bytes(nblock * quads * kLine);
  x.centroid_scale.assign(d, 1.0f / 64);
  x.centroid_offset = numbers(d);
  if (ncell) {
    x.cell_bias.assign(round_up(ncell, kBlock), -infinity);
    for (int64_t cell = 0; cell <= ncell; ++cell) {
      x.cell_start.push_back(static_cast<int32_t>(nblock * cell / ncell));
      if (cell < ncell) x.cell_bias[cell] = numbers(1)[0];
    }
    x.cell_codes = bytes(round_up(ncell, kBlock) / kBlock * quads * kLine);
  }

  std::vector<std::vector<uint32_t>> lists(nlist), delta_lists(nlist);
  for (int64_t row = 0; row < n; ++row) {
    const int64_t primary = below(nlist), other = below(nlist);
    std::vector<std::vector<uint32_t>>& mine = row < n_base ? lists : delta_lists;
    mine[primary].push_back(static_cast<uint32_t>(row));
    if (is_spilled && other != primary) mine[other].push_back(static_cast<uint32_t>(row));
  }
  for (const std::vector<uint32_t>& rows : lists) x.base.add_list(rows, m);
  for (const std::vector<uint32_t>& rows : delta_lists) x.delta.add_list(rows, m);

  const int64_t coded = ncell ? ceil_div(d, 2) : d;
  const int64_t extra = metric == kL2 ? 2 : 0, width = ceil_div(coded, m - extra);
  x.block_dims = split_dims(coded, m - extra);
  if (ncell) {
    x.rotation_codes = bytes(ceil_div(coded, kBlock) * quads * kLine);
    x.rotation_scale = floats(coded);
    x.rotation_scale.resize(round_up(coded, kBlock));
  }
  for (int64_t b = 0; b < extra; ++b) x.block_dims.push_back(x.block_dims.back() + 1);
  x.codebook = numbers(m * width * 16);
  x.store = bytes(n * stride);
  x.store_scale.assign(d, 1.0f / 64);
  if (metric == kL2) x.store_bias = numbers(n);

  Ivf& v = x.view;
  v.metric = metric, v.d = d, v.nlist = nlist, v.nslot = nslot, v.ncell = ncell, v.m = m;
  v.width = width, v.stride = stride, v.is_spilled = is_spilled;
  v.vectors = Kept{kFloat32, x.vectors.data(), nullptr, n_base, d, d};
  v.ids = x.ids.data(), v.mean = x.mean.data();
  v.centroid_bias = x.centroid_bias.data(), v.centroid_codes = x.centroid_codes.data();
  v.centroid_scale = x.centroid_scale.data(), v.centroid_offset = x.centroid_offset.data();
  v.slot_list = x.slot_list.data(), v.cell_codes = x.cell_codes.data();
  v.cell_bias = x.cell_bias.data(), v.cell_start = x.cell_start.data();
  v.list_start = x.base.start.data(), v.list_count = x.base.count.data();
  v.codes = x.base.codes.data(), v.code_rows = x.base.rows.data(), v.codebook = x.codebook.data();
  v.block_dims = x.block_dims.data(), v.store = x.store.data();
  v.store_scale = x.store_scale.data(), v.store_bias = x.store_bias.data();
  v.nturned = static_cast<int64_t>(x.rotation_scale.size());
  v.rotation_codes = x.rotation_codes.data(), v.rotation_scale = x.rotation_scale.data();
  v.spread = 1;
  v.n = n_base, v.ncode = static_cast<int64_t>(x.base.rows.size());
  if (n_base == n) return x;
  v.vectors.delta = x.vectors.data() + n_base * d, v.delta_ids = v.ids + n_base;
  v.delta_store = v.store + n_base * stride;
  v.delta_store_bias = metric == kL2 ? v.store_bias + n_base : nullptr;
  v.delta_start = x.delta.start.data(), v.delta_count = x.delta.count.data();
  v.delta_codes = x.delta.codes.data(), v.delta_code_rows = x.delta.rows.data();
  return x;
}

void fused_search(const Kernels& k) {
  const int64_t shapes[][2] = {{1, 8}, {2, 8}, {7, 8}, {31, 16}, {100, 56}, {128, 264}, {768, 1024}};
  const int64_t sizes[][2] = {{1, 1}, {15, 15}, {400, 400}, {400, 250}, {400, 0}};  // n, n_base
  const char* names[] = {"dot", "cosine", "l2"};
  for (int metric : {kDot, kCosine, kL2})
    for (const auto& [d, m] : shapes) {
      bool agree = true;
      for (bool is_spilled : {false, true})
        for (bool is_whole : {false, true})
          for (int64_t ncell : {0, 3})
            for (const auto& [n, n_base] : sizes) {
              const Index index =
                  make_index(metric, n, n_base, d, m, 50, ncell, is_spilled, is_whole);
              std::vector<uint8_t> bits = bytes(ceil_div(n, 8));
              for (uint8_t& byte : bits) byte &= static_cast<uint8_t>(generator());
              const Filter some{bits.data(), static_cast<int64_t>(bits.size())};
              const int64_t nq = 4, want = 10;
              std::vector<float> queries = is_whole ? whole(nq * d) : floats(nq * d);
              for (int64_t q = 0; q < nq; ++q) queries[q * d] += 3.5f;  // none is zero
              for (const Plan& plan : {Plan{want, 6, 2, 40, 30, 20}, Plan{want, 99, 9, 900, 900, 900},
                                       Plan{want, 1, 1, 10, 10, 10},
                                       Plan{want, 50, 9, 30, 20, 15, 0.2f}}) {
                for (const Filter* filter : {static_cast<const Filter*>(nullptr), &some}) {
                  std::vector<float> scores(nq * want), expected(nq * want);
                  std::vector<int64_t> ids(nq * want), expected_ids(nq * want);
                  std::vector<int64_t> scanned(nq), expected_scanned(nq);
                  const int64_t status =
                      ivf_search(k, index.view, plan, queries.data(), nq, 1, scores.data(),
                                 ids.data(), filter, scanned.data());
                  const int64_t expected_status =
                      ivf_search(kScalar, index.view, plan, queries.data(), nq, 1, expected.data(),
                                 expected_ids.data(), filter, expected_scanned.data());
                  agree = agree && status == expected_status && same(scores, expected) &&
                          same(ids, expected_ids) && same(scanned, expected_scanned);
                }
              }
            }
      check(k, std::string("ivf_search ") + names[metric] + " d=" + std::to_string(d) +
                   " m=" + std::to_string(m), agree);
    }
}

void bad_queries(const Kernels& k) {
  const float values[] = {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(), 0.0f};
  bool agree = true;
  for (float value : values) {
    const Index index = make_index(kCosine, 100, 100, 17, 8, 20, 0, true, false);
    std::vector<float> queries = floats(3 * 17), scores(30);
    std::fill(queries.begin() + 2 * 17, queries.end(), value);
    std::vector<int64_t> ids(30);
    const int64_t status = ivf_search(k, index.view, Plan{10, 20, 0, 90, 90, 90}, queries.data(), 3,
                                      1, scores.data(), ids.data());
    agree = agree && status == 2 * 4 + (value == 0 ? kZeroVector : kNotFinite);
  }
  check(k, "ivf_search of NaN, infinity and zero", agree);
}

// Scores with ties, NaN, infinities and both zeros.
std::vector<float> odd_scores(int64_t n) {
  const float odd[] = {std::numeric_limits<float>::quiet_NaN(),
                       std::numeric_limits<float>::infinity(),
                       -std::numeric_limits<float>::infinity(), 0.0f, -0.0f, 1.0f};
  std::vector<float> out = floats(n);
  for (float& x : out)
    if (below(3) == 0) x = odd[below(6)];
  return out;
}

void top_k(const Kernels& k) {
  bool selects = true, buckets = true;
  for (int64_t n : {1, 15, 16, 17, 64, 65, 1000, 5003})
    for (int64_t want : {int64_t{1}, std::min<int64_t>(n, 20), n}) {
      const std::vector<float> scores = odd_scores(2 * n);
      std::vector<float> values(2 * want), expected(2 * want);
      std::vector<int64_t> rows(2 * want), expected_rows(2 * want);
      select_topk(k, scores.data(), 2, n, want, 1, values.data(), rows.data());
      select_topk(kScalar, scores.data(), 2, n, want, 1, expected.data(), expected_rows.data());
      selects = selects && same(values, expected) && same(rows, expected_rows);
      for (int64_t count : {int64_t{1}, std::min<int64_t>(n, 48), std::min<int64_t>(n, 77)})
        for (int64_t keep : {1, 2, 3, 4, 5, 6, 7, 8, 9}) {
          const int64_t some = std::min(want, count * keep);
          std::vector<uint8_t> sure(2), expected_sure(2);
          bucket_topk(k, scores.data(), 2, n, count, keep, some, 1, values.data(), rows.data(),
                      sure.data());
          bucket_topk(kScalar, scores.data(), 2, n, count, keep, some, 1, expected.data(),
                      expected_rows.data(), expected_sure.data());
          buckets = buckets && same(values, expected) && same(rows, expected_rows) &&
                    same(sure, expected_sure);
        }
    }
  check(k, "select_topk", selects);
  check(k, "bucket_topk", buckets);
  for (int64_t bits : {4, 8}) {
    bool agree = true;
    for (int64_t units : {1, 3, 13, 512})
      for (int64_t n : {1, 16, 75, 1000}) {
        const int64_t nblock = ceil_div(n, kBlock), want = std::min<int64_t>(n, 30);
        const std::vector<uint8_t> codes = bytes(nblock * units * kLine);
        const std::vector<float> scale = floats(nblock * kBlock);
        const std::vector<int8_t> queries = query_bytes(3 * units * (bits == 8 ? 4 : 8));
        const Quantized x{codes.data(), scale.data(), bits, units, n};
        std::vector<float> values(3 * want), expected(3 * want);
        std::vector<int64_t> rows(3 * want), expected_rows(3 * want);
        quantized_topk(k, x, queries.data(), 3, want, 2, values.data(), rows.data());
        quantized_topk(kScalar, x, queries.data(), 3, want, 1, expected.data(),
                       expected_rows.data());
        agree = agree && same(values, expected) && same(rows, expected_rows);
      }
    check(k, "quantized_topk bits=" + std::to_string(bits), agree);
  }
}

void run(const Kernels& level) {
  lut16(level);
  byte_rows(level);
  float_rows(level);
  kept_rows(level);
  selection(level);
  exact_search(level);
  partitions(level);
  encoding(level);
  fused_search(level);
  bad_queries(level);
  top_k(level);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<const char*> names(argv + 1, argv + argc);
  if (names.empty())
    for (const char* name : {"avx2", "avx512", "neon"})
      if (has_level(name)) names.push_back(name);
  if (names.empty()) {
    std::fprintf(stderr, "expected a machine with avx2, avx512 or neon; this one has only scalar\n");
    return EXIT_FAILURE;
  }
  for (const char* name : names) {
    if (!use_level(name)) {
      std::fprintf(stderr, "expected a level of this machine (%s), got %s\n", cpu_features(), name);
      return EXIT_FAILURE;
    }
    run(kernels());
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
