// The lists of vectors, by blocked products with packed centroids.
//
//   module.cpp -> [assigner.cpp] -> kernels_<isa>.cpp
//
// Compiled for the oldest CPU of the platform, like dispatch.cpp.
#include "soardb/assigner.hpp"

#include <cmath>
#include <limits>

namespace soardb {
namespace {

constexpr int64_t kGrain = 1200;  // vectors that a thread takes at once

// The unit residual of x from its primary centroid c, zero where there is as good as none; returns
// its product with x.
float residual_direction(const float* x, const float* c, int64_t d, float* direction) {
  double squared = 0, whole = 0, dot = 0;
  for (int64_t j = 0; j < d; ++j) {
    squared += static_cast<double>(x[j] - c[j]) * (x[j] - c[j]);
    whole += static_cast<double>(x[j]) * x[j];
  }
  const double inverse = squared <= 1e-7 * whole ? 0 : 1 / std::sqrt(squared);
  for (int64_t j = 0; j < d; ++j) {
    direction[j] = static_cast<float>((x[j] - c[j]) * inverse);
    dot += static_cast<double>(direction[j]) * x[j];
  }
  return static_cast<float>(dot);
}

}  // namespace

// Norms are padded with +inf, so that no column of padding is ever the nearest.
Assigner::Assigner(const float* centroids, int64_t nlist, int64_t d)
    : centroids_(centroids),
      nlist_(nlist),
      d_(d),
      panels_(round_up(nlist, kPanel) * d),
      norms_(round_up(nlist, kPanel), std::numeric_limits<float>::infinity()),
      half_norms_(norms_) {
  pack_panels(centroids, nlist, d, panels_.data());
  for (int64_t c = 0; c < nlist; ++c) {
    double sum = 0;
    for (int64_t i = 0; i < d; ++i)
      sum += static_cast<double>(centroids[c * d + i]) * centroids[c * d + i];
    norms_[c] = static_cast<float>(sum);
    half_norms_[c] = static_cast<float>(sum * 0.5);
  }
}

void Assigner::assign(const Kernels& k, const float* vectors, int64_t n, int threads, int32_t* out,
                      float* scores) const {
  parallel(n, kGrain, threads, [&](int64_t begin, int64_t end) {
    k.assign(vectors + begin * d_, end - begin, d_, panels_.data(), half_norms_.data(), nlist_,
             out + begin, scores ? scores + begin : nullptr);
  });
}

void Assigner::spill(const Kernels& k, const float* vectors, int64_t n, const int32_t* primary,
                     float soar_lambda, bool include_primary, int threads, int32_t* out) const {
  parallel(n, kGrain, threads, [&](int64_t begin, int64_t end) {
    const int64_t count = end - begin;
    std::vector<float> directions(count * d_), along(count);
    for (int64_t i = 0; i < count; ++i)
      along[i] = residual_direction(vectors + (begin + i) * d_,
                                    centroids_ + primary[begin + i] * d_, d_, &directions[i * d_]);
    k.spill_assign(vectors + begin * d_, directions.data(), along.data(), count, d_,
                   panels_.data(), norms_.data(), nlist_, primary + begin, soar_lambda,
                   include_primary, out + begin);
  });
}

}  // namespace soardb
