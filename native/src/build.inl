// What builds an index: the nearest and the spilled partition of a vector, and its code.
//
//   kernels_common.inl -> [build.inl]
//
// Partitions. Vectors and centroids, less the mean centroid, become signed bytes, each with a step
// of its own, and all pairs are scored by exact integer products, a group of vectors at a time: by
// the level's own score_blocks, or by tiles where the CPU has them. A vector keeps the best score of
// each of 32 lanes; those within the error of the products are then scored in float32, and where
// more than a few are so near, every centroid that near is. So the choice is the nearest one, but
// for the rare one that another of its lane hid, and it is the same at every level.

constexpr int kWinners = 32;              // lanes
constexpr int kFewNear = 3;               // so few near lanes seldom hide another near centroid
constexpr float kErrorWidth = 4.0f;       // standard deviations of a rounded product
constexpr float kRounding = 0.28867513f;  // standard deviation of a rounding, 1 / sqrt(12)
constexpr int64_t kTileBlocks = kTileColumns / kBlock;

// A row as signed bytes: x ~ mean + step * byte; length is that of x - mean.
struct CodedRow {
  float step, length;
};

// mean may be null. Bytes from d to 4 * quads are zero.
static CodedRow code_row(const float* x, const float* mean, int64_t d, int64_t quads,
                         int8_t* out) {
  F16 peaks = set16(0), squares = set16(0);
  const auto part = [=](int64_t i, int64_t c) {
    return mean ? load_some(x + i, c) - load_some(mean + i, c) : load_some(x + i, c);
  };
  for (int64_t i = 0; i < d; i += 16) {
    const F16 v = part(i, d - i < 16 ? d - i : 16);
    peaks = max16(peaks, abs16(v));
    squares = squares + v * v;
  }
  const float peak = highest16(peaks);
  const bool is_zero = !(peak >= 0x1p-110f);
  const F16 inverse = set16(is_zero ? 0.0f : 127.0f / peak);
  int64_t i = 0;
  for (; i < d; i += 16) {
    const int64_t c = d - i < 16 ? d - i : 16;
    uint8_t bytes[16];
    store_bytes(bytes, round16(part(i, c) * inverse) + set16(128.0f));
    for (int j = 0; j < 16; ++j) bytes[j] ^= 0x80;
    __builtin_memcpy(out + i, bytes, c == 16 ? 16 : c);
  }
  __builtin_memset(out + d, 0, 4 * quads - d);
  return {is_zero ? 1.0f : peak / 127.0f, __builtin_sqrtf(fold16(squares))};
}

// The best column of every lane so far.
struct Best {
  F16 value;
  I16 index;
};
SOARDB_INLINE void improve(Best& best, F16 value, int32_t first) {
  SOARDB_PARTS {
    IV column;
    for (int l = 0; l < kLanes; ++l) column[l] = first + p * kLanes + l;
    const auto better = value.v[p] > best.value.v[p];
    best.value.v[p] = better ? value.v[p] : best.value.v[p];
    best.index.v[p] = better ? column : best.index.v[p];
  }
}

// How near one vector is to the centroids; bigger is nearer. rough() is by bytes, of 16 centroids
// from c on; its error has the standard deviation of_spread * spread[c] + of_scale * scale[c].
struct Nearest {
  static constexpr bool kIsTurned = false;
  const float* row;
  float step, of_spread, of_scale;

  __attribute__((always_inline)) F16 rough(const Places& x, int64_t c, const int32_t* dots,
                                           const int32_t*) const {
    return to_float(dots) * (load16(x.scale + c) * set16(step)) - load16(x.half_norms + c);
  }
  float exact(const Places& x, int64_t c) const {
    return -lane_square_distance(row, x.centroids + c * x.d, x.d);
  }
  int64_t barred() const { return -1; }
};

// The spilled partition: minus half of |x - c|^2 + lambda <r_hat, x - c>^2.
struct Spilled {
  static constexpr bool kIsTurned = true;
  const float *row, *direction;
  float step, turned_step, of_spread, of_scale, along, half_lambda;
  int64_t bar;

  __attribute__((always_inline)) F16 rough(const Places& x, int64_t c, const int32_t* dots,
                                           const int32_t* turned) const {
    const F16 scale = load16(x.scale + c);
    const F16 shadow = set16(along) - to_float(turned) * (scale * set16(turned_step));
    const F16 value = to_float(dots) * (scale * set16(step)) - load16(x.half_norms + c) -
                      set16(half_lambda) * (shadow * shadow);
    if (bar < c || bar >= c + kBlock) return value;
    float values[16];
    store16(values, value);
    values[bar - c] = -__builtin_inff();
    return load16(values);
  }
  float exact(const Places& x, int64_t c) const {
    const float* centroid = x.centroids + c * x.d;
    const float* a = row;
    const float* b = direction;
    const float shadow = fold_lanes(x.d, [=](int64_t i, int64_t n) {
      return load_some(b + i, n) * (load_some(a + i, n) - load_some(centroid + i, n));
    });
    return -0.5f * lane_square_distance(row, centroid, x.d) - half_lambda * (shadow * shadow);
  }
  int64_t barred() const { return bar; }
};

// dots[row * kTileColumns + column]: exact sums of the rows' codes with 16 * nblock centroids.
static void group_products(const Places& x, TileProducts tiles, const int8_t* codes, int64_t rows,
                           int64_t block, int64_t nblock, int32_t* dots) {
  const uint8_t* blocks = x.codes + block * x.quads * kLine;
  if (tiles && rows > 4) {
    tiles(codes, rows, x.quads, blocks, nblock, dots);
    return;
  }
  for (int64_t r = 0; r < rows; ++r) {
    const int8_t* row = codes + r * 4 * x.quads;
    score_blocks(blocks, nblock, x.quads, row, 128 * sum_bytes(row, 4 * x.quads),
                 dots + r * kTileColumns);
  }
}

// The best in float32 of all centroids whose rough value may reach `floor`; -1 where there is none.
template <typename Near>
static int32_t best_of_all(const Places& x, const Near& near, const int8_t* code,
                           const int8_t* turned, float floor) {
  int32_t dots[kTileColumns], shadows[kTileColumns] = {}, found = -1;
  float most = -__builtin_inff();
  for (int64_t block = 0; block < x.nblock; block += kTileBlocks) {
    const int64_t count = x.nblock - block < kTileBlocks ? x.nblock - block : kTileBlocks;
    group_products(x, nullptr, code, 1, block, count, dots);
    if (Near::kIsTurned) group_products(x, nullptr, turned, 1, block, count, shadows);
    for (int64_t b = 0; b < count; ++b) {
      const int64_t c = (block + b) * kBlock;
      const F16 error = set16(near.of_spread) * load16(x.spread + c) +
                        set16(near.of_scale) * load16(x.scale + c);
      const F16 reach =
          near.rough(x, c, dots + 16 * b, shadows + 16 * b) + set16(kErrorWidth) * error;
      if (!(highest16(reach) >= floor)) continue;
      float reaches[16];
      store16(reaches, reach);
      for (int64_t l = 0; l < 16 && c + l < x.nlist; ++l) {
        if (!(reaches[l] >= floor) || c + l == near.barred()) continue;
        const float value = near.exact(x, c + l);
        if (value > most || found < 0) {
          most = value;
          found = static_cast<int32_t>(c + l);
        }
      }
    }
  }
  return found;
}

// From the lanes' winners to the best centroid; -1 where all are barred.
template <typename Near>
static int32_t settle_best(const Places& x, const Near& near, const float* values,
                           const int32_t* lists, const int8_t* code, const int8_t* turned) {
  int top = 0;
  for (int w = 1; w < kWinners; ++w)
    if (values[w] > values[top]) top = w;
  if (!(values[top] > -__builtin_inff()))
    return best_of_all(x, near, code, turned, -__builtin_inff());
  const auto error = [&](int32_t c) {
    return kErrorWidth * (near.of_spread * x.spread[c] + near.of_scale * x.scale[c]);
  };
  const float floor = values[top] - error(lists[top]);
  const float surely = floor - kErrorWidth * (near.of_spread * x.widest + near.of_scale * x.coarsest);
  int32_t found[kFewNear];
  int count = 0;
  for (int w = 0; w < kWinners; ++w) {
    if (values[w] < surely || values[w] + error(lists[w]) < floor) continue;
    if (count == kFewNear) return best_of_all(x, near, code, turned, floor);
    found[count++] = lists[w];
  }
  if (count == 1) return found[0];
  int32_t best = -1;
  float most = 0;
  for (int i = 0; i < count; ++i) {
    const float value = near.exact(x, found[i]);
    if (best < 0 || value > most || (value == most && found[i] < best)) {
      most = value;
      best = found[i];
    }
  }
  return best;
}

// The best centroid of each of a group of vectors.
template <typename Near>
static void best_of_group(const Places& x, TileProducts tiles, const Near* near, int64_t rows,
                          const int8_t* codes, const int8_t* turned, int32_t* out) {
  alignas(64) int32_t dots[kTileRows * kTileColumns], shadows[kTileRows * kTileColumns];
  alignas(64) float values[kTileRows][kWinners];
  alignas(64) int32_t lists[kTileRows][kWinners];
  for (int64_t r = 0; r < rows; ++r)
    for (int w = 0; w < kWinners; ++w) {
      values[r][w] = -__builtin_inff();
      lists[r][w] = 0;
    }
  for (int64_t block = 0; block < x.nblock; block += kTileBlocks) {
    const int64_t count = x.nblock - block < kTileBlocks ? x.nblock - block : kTileBlocks;
    group_products(x, tiles, codes, rows, block, count, dots);
    if (Near::kIsTurned) group_products(x, tiles, turned, rows, block, count, shadows);
    for (int64_t r = 0; r < rows; ++r) {
      Best best[2];
      for (int h = 0; h < 2; ++h) {
        best[h].value = load16(values[r] + 16 * h);
        __builtin_memcpy(&best[h].index, lists[r] + 16 * h, sizeof best[h].index);
      }
      const int32_t* row_dots = dots + r * kTileColumns;
      const int32_t* row_shadows = shadows + r * kTileColumns;
      for (int64_t b = 0; b < count; b += 2)
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
          const int64_t c = (block + b + h) * kBlock;
          improve(best[h],
                  near[r].rough(x, c, row_dots + 16 * (b + h), row_shadows + 16 * (b + h)),
                  static_cast<int32_t>(c));
        }
      for (int h = 0; h < 2; ++h) {
        store16(values[r] + 16 * h, best[h].value);
        __builtin_memcpy(lists[r] + 16 * h, &best[h].index, sizeof best[h].index);
      }
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = r * 4 * x.quads;
    out[r] = settle_best(x, near[r], values[r], lists[r], codes + at,
                         Near::kIsTurned ? turned + at : nullptr);
  }
}

// scratch: kTileRows codes, zeroed.
static void assign(const Places& x, TileProducts tiles, const float* vectors, int64_t n,
                   int8_t* scratch, int32_t* out, float* scores) {
  for (int64_t first = 0; first < n; first += kTileRows) {
    const int64_t rows = n - first < kTileRows ? n - first : kTileRows;
    Nearest near[kTileRows];
    for (int64_t r = 0; r < rows; ++r) {
      const float* row = vectors + (first + r) * x.d;
      const CodedRow coded = code_row(row, x.mean, x.d, x.quads, scratch + r * 4 * x.quads);
      near[r] = {row, coded.step, coded.step * kRounding, coded.length * kRounding};
    }
    best_of_group(x, tiles, near, rows, scratch, nullptr, out + first);
    for (int64_t r = 0; r < rows; ++r) {
      const int32_t c = out[first + r] < 0 ? 0 : out[first + r];  // of a vector that is no number
      out[first + r] = c;
      scores[first + r] = lane_dot(near[r].row, x.centroids + c * x.d, x.d) - x.raw_half_norms[c];
    }
  }
}

// directions (n, d): unit primary residuals, or zeros. scratch: 2 * kTileRows codes, zeroed.
static void spill_assign(const Places& x, TileProducts tiles, const float* vectors,
                         const float* directions, int64_t n, const int32_t* primary,
                         float soar_lambda, bool include_primary, int8_t* scratch, int32_t* out) {
  int8_t* turned = scratch + kTileRows * 4 * x.quads;
  for (int64_t first = 0; first < n; first += kTileRows) {
    const int64_t rows = n - first < kTileRows ? n - first : kTileRows;
    Spilled near[kTileRows];
    for (int64_t r = 0; r < rows; ++r) {
      const float* row = vectors + (first + r) * x.d;
      const float* direction = directions + (first + r) * x.d;
      const int64_t at = r * 4 * x.quads;
      const CodedRow coded = code_row(row, x.mean, x.d, x.quads, scratch + at);
      const CodedRow along = code_row(direction, nullptr, x.d, x.quads, turned + at);
      const float* mean = x.mean;
      const float shadow = fold_lanes(x.d, [=](int64_t i, int64_t c) {
        return load_some(direction + i, c) * (load_some(row + i, c) - load_some(mean + i, c));
      });
      // The shadow of the best one is at most about the length of the primary residual.
      const float* home = x.centroids + primary[first + r] * x.d;
      const float weight = soar_lambda * __builtin_sqrtf(lane_square_distance(row, home, x.d));
      near[r] = {row,
                 direction,
                 coded.step,
                 along.step,
                 (coded.step + weight * along.step) * kRounding,
                 (coded.length + weight * along.length) * kRounding,
                 shadow,
                 0.5f * soar_lambda,
                 include_primary ? -1 : primary[first + r]};
    }
    best_of_group(x, tiles, near, rows, scratch, turned, out + first);
    for (int64_t r = 0; r < rows; ++r)
      if (out[first + r] < 0) out[first + r] = primary[first + r];
  }
}

// ---------------------------------------------------------------- anisotropic encoding

// scratch: 2 * 16 * m floats, then m int32.
static void encode_one(const float* residual, const float* direction, float eta,
                       const float* codebook, int64_t m, int64_t width, const int32_t* dims,
                       float* scratch, uint8_t* code) {
  float* norms = scratch;
  float* alongs = scratch + 16 * m;
  int32_t* order = reinterpret_cast<int32_t*>(scratch + 32 * m);
  for (int64_t b = 0; b < m; ++b) {
    F16 norm = set16(0), along = set16(0);
    for (int32_t j = dims[b]; j < dims[b + 1]; ++j) {
      const F16 error = set16(residual[j]) - load16(codebook + (b * width + j - dims[b]) * 16);
      norm = norm + error * error;
      along = along + error * set16(direction[j]);
    }
    store16(norms + 16 * b, norm);
    store16(alongs + 16 * b, along);
    code[b] = static_cast<uint8_t>(argmin16(norm));
  }
  if (eta == 1.0f) return;
  float parallel = 0;
  for (int64_t b = 0; b < m; ++b) {
    parallel = parallel + alongs[16 * b + code[b]];
    order[b] = static_cast<int32_t>(b);
  }
  sort_positions(order, m, [=](int32_t a, int32_t b) {
    const float x = norms[16 * a + code[a]], y = norms[16 * b + code[b]];
    return x > y || (x == y && a < b);
  });
  for (int round = 0; round < 10; ++round) {
    bool changed = false;
    for (int64_t i = 0; i < m; ++i) {
      const int32_t b = order[i];
      const int old = code[b];
      const F16 along = load16(alongs + 16 * b), norm = load16(norms + 16 * b);
      const F16 moved = (set16(parallel) - set16(alongs[16 * b + old])) + along;
      const F16 d_parallel = moved * moved - set16(parallel) * set16(parallel);
      const F16 d_norm = norm - set16(norms[16 * b + old]);
      F16 cost = set16(eta) * d_parallel + (d_norm - d_parallel);
      SOARDB_PARTS cost.v[p] = d_parallel.v[p] > 0.0f ? FV{} + __builtin_inff() : cost.v[p];
      float costs[16];
      store16(costs, cost);
      costs[old] = 0;
      const int best = argmin16(load16(costs));
      if (costs[best] < 0) {
        float moves[16];
        store16(moves, moved);
        parallel = moves[best];
        code[b] = static_cast<uint8_t>(best);
        changed = true;
      }
    }
    if (!changed) break;
  }
}

static void encode(const float* residuals, const float* directions, const float* eta, int64_t n,
                   int64_t d, const float* codebook, int64_t m, int64_t width,
                   const int32_t* block_dims, float* scratch, uint8_t* out) {
  for (int64_t i = 0; i < n; ++i)
    encode_one(residuals + i * d, directions + i * d, eta[i], codebook, m, width, block_dims,
               scratch, out + i * m);
}
