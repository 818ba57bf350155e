// Tiles without tile instructions: one block of 16 rows against one query at a time.
//
//   tiles_scalar.cpp, tiles_avx2.cpp -> [tiles_plain.inl]
//
// Included inside an anonymous namespace, like kernels_common.inl and for the same reason. The
// compiler vectorises the products with whatever the including file is compiled for.

static inline int32_t sortable(float x) {
  x += 0.0f;  // -0 and +0 are one
  int32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return bits ^ static_cast<int32_t>(static_cast<uint32_t>(bits >> 31) >> 1);
}

constexpr int64_t kChunk = 256, kPiece = 1024;

// sums[i] += the products of rows [first, first + count) with one query.
static void add_products(const TileRows& rows, int64_t first, int64_t count, int64_t width,
                         const int8_t* panel, int32_t* sums) {
  int16_t query[kPiece];
  for (int64_t piece = 0; piece < width; piece += kPiece) {
    const int64_t wide = width - piece < kPiece ? width - piece : kPiece;
    for (int64_t j = 0; j < wide; ++j) query[j] = panel[(piece + j) / 4 * 64 + j % 4];
    for (int64_t i = 0; i < count; ++i) {
      const uint8_t* row = rows.bytes + (first + i) * rows.stride + piece;
      int32_t sum = 0;
      for (int64_t j = 0; j < wide; ++j)
        sum += static_cast<int32_t>(row[j]) * static_cast<int32_t>(query[j]);
      sums[i] += sum;
    }
  }
}

// Calls consume(query, first row of a block, rows of it, keys), blocks of one query in order.
template <typename Consume>
static void each_block(const TileRows& rows, const TileQueries& x, const Consume& consume) {
  int32_t keys[kChunk];
  for (int64_t first = 0; first < rows.n; first += kChunk)
    for (int64_t q = 0; q < 16 * x.panels; ++q) {
      const int64_t count = rows.n - first < kChunk ? rows.n - first : kChunk;
      for (int64_t i = 0; i < count; ++i) keys[i] = x.corrections[q];
      add_products(rows, first, count, x.width, x.packed + q / 16 * x.width * 16 + q % 16 * 4,
                   keys);
      if (rows.bias)
        for (int64_t i = 0; i < count; ++i)
          keys[i] = sortable(static_cast<float>(keys[i]) * x.steps[q] - rows.bias[first + i]);
      for (int64_t i = 0; i < count; i += 16)
        consume(q, first + i, count - i < 16 ? count - i : 16, keys + i);
    }
}

static void scan(const TileRows& rows, const TileQueries& x, const Kernels& k) {
  each_block(rows, x, [&](int64_t q, int64_t first, int64_t count, const int32_t* keys) {
    int32_t* pool = x.keys + q * x.capacity;
    uint32_t* numbers = x.rows + q * x.capacity;
    int64_t size = x.sizes[q];
    for (int64_t i = 0; i < count; ++i) {
      if (keys[i] <= x.thresholds[q]) continue;
      pool[size] = keys[i];
      numbers[size++] =
          rows.numbers ? rows.numbers[first + i] : rows.first + static_cast<uint32_t>(first + i);
    }
    if (size > x.capacity - 16)
      size = k.keep_largest(pool, numbers, size, x.keep, x.thresholds + q);
    x.sizes[q] = size;
  });
}

static void maxima(const TileRows& rows, const TileQueries& x, int32_t* out) {
  each_block(rows, x, [&](int64_t q, int64_t first, int64_t count, const int32_t* keys) {
    int32_t best = keys[0];
    for (int64_t i = 1; i < count; ++i) best = keys[i] > best ? keys[i] : best;
    out[first / 16 * 16 * x.panels + q] = best;
  });
}
