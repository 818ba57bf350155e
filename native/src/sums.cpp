// What moves the centroids: sums over the vectors of each list.
//
//   module.cpp -> [sums.cpp]
//
// soardb/kernels/reference.py, list_sums and avq_update, says what is computed; the order of
// additions is the same for any number of threads. It waits for memory more than for arithmetic, so
// one version serves every level.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "soardb/assigner.hpp"

namespace soardb {
namespace {

// The vectors by list: those of list c are order[ends[c - 1] .. ends[c]).
struct Members {
  std::vector<uint32_t> order;
  std::vector<int64_t> ends;

  Members(const int32_t* lists, int64_t n, int64_t nlist) : order(n), ends(nlist) {
    std::vector<int64_t> next(nlist);
    for (int64_t i = 0; i < n; ++i) ++ends[lists[i]];
    std::exclusive_scan(ends.begin(), ends.end(), next.begin(), int64_t{0});
    std::inclusive_scan(ends.begin(), ends.end(), ends.begin());
    for (int64_t i = 0; i < n; ++i) order[next[lists[i]]++] = static_cast<uint32_t>(i);
  }
  int64_t begin(int64_t list) const { return list ? ends[list - 1] : 0; }
};

constexpr double kSolved = 1e-9;   // of the residual, relative to the right-hand side
constexpr int64_t kMostSteps = 1000;

// Solves (W + (eta - 1) sum w u u^T) c = eta sum w x, u being x's direction, by conjugate
// gradients: the eigenvalues lie within a factor of eta, so that a few steps do. rows (n, d) are
// the list's vectors and are made directions here. Leaves c as it is where no row has one.
void move_centroid(float* rows, int64_t n, int64_t d, double eta, double* c) {
  std::vector<double> weights(n), lengths(n), right(d), residual(d), towards(d), applied(d);
  double longest = 0, total = 0;
  for (int64_t i = 0; i < n; ++i) {
    double squared = 0;
    for (int64_t j = 0; j < d; ++j) squared += static_cast<double>(rows[i * d + j]) * rows[i * d + j];
    lengths[i] = std::sqrt(squared);
    longest = std::max(longest, lengths[i]);
  }
  if (longest == 0) return;
  for (int64_t i = 0; i < n; ++i) {
    if (lengths[i] == 0) continue;
    const double weight = std::pow(lengths[i] / longest, eta - 1), inverse = 1 / lengths[i];
    weights[i] = weight;
    total += weight;
    for (int64_t j = 0; j < d; ++j) {
      right[j] += eta * weight * rows[i * d + j];
      rows[i * d + j] = static_cast<float>(rows[i * d + j] * inverse);
    }
  }
  const auto apply = [&](const std::vector<double>& x, std::vector<double>& out) {
    for (int64_t j = 0; j < d; ++j) out[j] = total * x[j];
    for (int64_t i = 0; i < n; ++i) {
      const float* row = rows + i * d;
      double parts[8] = {};
      int64_t j = 0;
      for (; j + 8 <= d; j += 8)
        for (int l = 0; l < 8; ++l) parts[l] += row[j + l] * x[j + l];
      for (; j < d; ++j) parts[0] += row[j] * x[j];
      const double along = ((parts[0] + parts[4]) + (parts[1] + parts[5])) +
                           ((parts[2] + parts[6]) + (parts[3] + parts[7]));
      const double factor = (eta - 1) * weights[i] * along;
      for (j = 0; j < d; ++j) out[j] += factor * row[j];
    }
  };
  const auto dot = [d](const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (int64_t j = 0; j < d; ++j) sum += a[j] * b[j];
    return sum;
  };
  std::fill(c, c + d, 0.0);
  residual = towards = right;
  double squared = dot(residual, residual);
  const double enough = kSolved * kSolved * squared;
  for (int64_t step = 0; step < kMostSteps && squared > enough; ++step) {
    apply(towards, applied);
    const double length = squared / dot(towards, applied);
    for (int64_t j = 0; j < d; ++j) {
      c[j] += length * towards[j];
      residual[j] -= length * applied[j];
    }
    const double next = dot(residual, residual);
    for (int64_t j = 0; j < d; ++j) towards[j] = residual[j] + next / squared * towards[j];
    squared = next;
  }
}

}  // namespace

void list_sums(const float* vectors, int64_t n, int64_t d, const int32_t* lists, int64_t nlist,
               int threads, float* sums, int64_t* counts) {
  const Members members(lists, n, nlist);
  const std::vector<uint32_t>& order = members.order;
  parallel(nlist, 16, threads, [&](int64_t begin, int64_t end) {
    constexpr int64_t ahead = 8;
    const int64_t last = members.ends[end - 1];
    for (int64_t c = begin; c < end; ++c) {
      float* sum = sums + c * d;
      std::fill(sum, sum + d, 0.0f);
      counts[c] = members.ends[c] - members.begin(c);
      for (int64_t i = members.begin(c); i < members.ends[c]; ++i) {
        if (i + ahead < last)
          for (int64_t j = 0; j < d; j += 16)
            __builtin_prefetch(vectors + order[i + ahead] * d + j);
        const float* row = vectors + order[i] * d;
        for (int64_t j = 0; j < d; ++j) sum[j] += row[j];
      }
    }
  });
}

void avq_update(const float* vectors, int64_t n, int64_t d, const int32_t* lists, int64_t nlist,
                double eta, int threads, double* moved) {
  const Members members(lists, n, nlist);
  parallel(nlist, 1, threads, [&](int64_t begin, int64_t end) {
    std::vector<float> rows;
    for (int64_t c = begin; c < end; ++c) {
      const int64_t first = members.begin(c), count = members.ends[c] - first;
      rows.resize(count * d);
      for (int64_t i = 0; i < count; ++i)
        std::copy_n(vectors + members.order[first + i] * d, d, rows.data() + i * d);
      move_centroid(rows.data(), count, d, eta, moved + c * d);
    }
  });
}

}  // namespace soardb
