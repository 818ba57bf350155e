// The lists of vectors, by products of bytes with packed centroids.
//
//   module.cpp -> [assigner.cpp] -> kernels_<isa>.cpp
//
// Compiled for the oldest CPU of the platform, like dispatch.cpp.
#include "soardb/assigner.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace soardb {
namespace {

constexpr int64_t kGrain = 1024;  // vectors that a thread takes at once

// The unit residual of x from its primary centroid c, zero where there is as good as none.
void residual_direction(const float* x, const float* c, int64_t d, float* direction) {
  double squared = 0, whole = 0;
  for (int64_t j = 0; j < d; ++j) {
    squared += static_cast<double>(x[j] - c[j]) * (x[j] - c[j]);
    whole += static_cast<double>(x[j]) * x[j];
  }
  const double inverse = squared <= 1e-7 * whole ? 0 : 1 / std::sqrt(squared);
  for (int64_t j = 0; j < d; ++j) direction[j] = static_cast<float>((x[j] - c[j]) * inverse);
}

// Fours of bytes, so that a tile's steps of at most 16 of them come out even.
int64_t padded_quads(int64_t d) {
  const int64_t quads = ceil_div(d, 4), steps = ceil_div(quads, 16);
  return steps * ceil_div(quads, steps);
}

}  // namespace

// Columns of padding are infinitely long, so that none is ever the nearest.
Assigner::Assigner(const float* centroids, int64_t nlist, int64_t d)
    : mean_(d), raw_half_norms_(nlist) {
  Places& x = places_;
  x.nlist = nlist;
  x.d = d;
  x.nblock = round_up(nlist, 2 * kBlock) / kBlock;
  x.quads = padded_quads(d);
  const int64_t columns = x.nblock * kBlock;
  scale_.assign(columns, 0.0f);
  half_norms_.assign(columns, std::numeric_limits<float>::infinity());
  spread_.assign(columns, 0.0f);
  codes_.assign(x.nblock * x.quads * kLine, 128);
  std::vector<double> sums(d);
  for (int64_t c = 0; c < nlist; ++c)
    for (int64_t i = 0; i < d; ++i) sums[i] += centroids[c * d + i];
  for (int64_t i = 0; i < d; ++i)
    mean_[i] = static_cast<float>(sums[i] / static_cast<double>(nlist));
  for (int64_t c = 0; c < nlist; ++c) {
    const float* row = centroids + c * d;
    double raw = 0, squared = 0;
    float peak = 0;
    for (int64_t i = 0; i < d; ++i) {
      const float v = row[i] - mean_[i];
      raw += static_cast<double>(row[i]) * row[i];
      squared += static_cast<double>(v) * v;
      peak = std::max(peak, std::fabs(v));
    }
    raw_half_norms_[c] = static_cast<float>(0.5 * raw);
    half_norms_[c] = static_cast<float>(0.5 * squared);
    spread_[c] = static_cast<float>(std::sqrt(squared));
    const bool is_zero = peak < 0x1p-110f;
    const float inverse = is_zero ? 0.0f : 127.0f / peak;
    scale_[c] = is_zero ? 1.0f : peak / 127.0f;
    uint8_t* out = codes_.data() + (c / kBlock) * x.quads * kLine + 4 * (c % kBlock);
    for (int64_t i = 0; i < d; ++i)
      out[i / 4 * kLine + i % 4] = static_cast<uint8_t>(
          static_cast<int>(std::floor((row[i] - mean_[i]) * inverse + 0.5f)) + 128);
    x.widest = std::max(x.widest, spread_[c]);
    x.coarsest = std::max(x.coarsest, scale_[c]);
  }
  x.centroids = centroids;
  x.raw_half_norms = raw_half_norms_.data();
  x.mean = mean_.data();
  x.codes = codes_.data();
  x.scale = scale_.data();
  x.half_norms = half_norms_.data();
  x.spread = spread_.data();
}

void Assigner::assign(const Kernels& k, const float* vectors, int64_t n, int threads, int32_t* out,
                      float* scores) const {
  const int64_t d = places_.d;
  parallel(n, kGrain, threads, [&](int64_t begin, int64_t end) {
    std::vector<int8_t> scratch(kTileRows * 4 * places_.quads);
    k.assign(places_, tile_products(k), vectors + begin * d, end - begin, scratch.data(),
             out + begin, scores + begin);
  });
}

void Assigner::spill(const Kernels& k, const float* vectors, int64_t n, const int32_t* primary,
                     float soar_lambda, bool include_primary, int threads, int32_t* out) const {
  const int64_t d = places_.d;
  parallel(n, kGrain, threads, [&](int64_t begin, int64_t end) {
    const int64_t count = end - begin;
    std::vector<float> directions(count * d);
    std::vector<int8_t> scratch(2 * kTileRows * 4 * places_.quads);
    for (int64_t i = 0; i < count; ++i)
      residual_direction(vectors + (begin + i) * d,
                         places_.centroids + primary[begin + i] * d, d, &directions[i * d]);
    k.spill_assign(places_, tile_products(k), vectors + begin * d, directions.data(), count,
                   primary + begin, soar_lambda, include_primary, scratch.data(), out + begin);
  });
}

}  // namespace soardb
