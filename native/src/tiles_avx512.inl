// What becomes of a tile of products where there is AVX-512: keys, thresholds, pushes.
//
//   tiles_vnni.cpp, tiles_amx.cpp -> [tiles_avx512.inl]
//
// Included inside an anonymous namespace. A tile is c[16 rows][16 queries] int32, corrected.

#define SOARDB_INLINE static inline __attribute__((always_inline))
#define SOARDB_INLINE_MEMBER inline __attribute__((always_inline))

// Floats as integers that sort the same way, and back; -0 and +0 are one.
SOARDB_INLINE __m512i sortable(__m512 x) {
  const __m512i bits = _mm512_castps_si512(_mm512_add_ps(x, _mm512_setzero_ps()));
  return _mm512_xor_si512(bits, _mm512_srli_epi32(_mm512_srai_epi32(bits, 31), 1));
}
SOARDB_INLINE __m512 from_sortable(__m512i keys) {
  return _mm512_castsi512_ps(
      _mm512_xor_si512(keys, _mm512_srli_epi32(_mm512_srai_epi32(keys, 31), 1)));
}

// Row r of a tile under l2: product * step - bias, unfused as everywhere.
SOARDB_INLINE __m512 biased(const int32_t* c, __m512 steps, float bias) {
  const __m512 product = _mm512_cvtepi32_ps(_mm512_load_si512(c));
  return _mm512_sub_ps(_mm512_mul_ps(product, steps), _mm512_set1_ps(bias));
}

SOARDB_INLINE __m512i column_maxima(const int32_t* c) {
  __m512i best[4];
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) best[r] = _mm512_load_si512(c + 16 * r);
#pragma GCC unroll 12
  for (int r = 4; r < 16; ++r)
    best[r % 4] = _mm512_max_epi32(best[r % 4], _mm512_load_si512(c + 16 * r));
  return _mm512_max_epi32(_mm512_max_epi32(best[0], best[1]),
                          _mm512_max_epi32(best[2], best[3]));
}
SOARDB_INLINE __m512 column_maxima(const int32_t* c, __m512 steps, const float* bias) {
  __m512 best[4];
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) best[r] = biased(c + 16 * r, steps, bias[r]);
#pragma GCC unroll 12
  for (int r = 4; r < 16; ++r)
    best[r % 4] = _mm512_max_ps(best[r % 4], biased(c + 16 * r, steps, bias[r]));
  return _mm512_max_ps(_mm512_max_ps(best[0], best[1]), _mm512_max_ps(best[2], best[3]));
}

// The rows of one query's column that are above its threshold, into its pool.
template <bool kBias>
static void push_column(const int32_t* c, const TileRows& rows, int64_t first, int64_t count,
                        const TileQueries& x, int64_t q, const Kernels& k) {
  const __m512i down = _mm512_set_epi32(240, 224, 208, 192, 176, 160, 144, 128, 112, 96, 80, 64,
                                        48, 32, 16, 0);
  const __m512i iota = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __mmask16 valid = count < 16 ? static_cast<__mmask16>((1u << count) - 1u) : 0xFFFF;
  __m512i keys = _mm512_i32gather_epi32(down, c + q % 16, 4);
  if constexpr (kBias)
    keys = sortable(_mm512_sub_ps(
        _mm512_mul_ps(_mm512_cvtepi32_ps(keys), _mm512_set1_ps(x.steps[q])),
        _mm512_maskz_loadu_ps(valid, rows.bias + first)));
  const __mmask16 take =
      _mm512_mask_cmpgt_epi32_mask(valid, keys, _mm512_set1_epi32(x.thresholds[q]));
  const __m512i numbers =
      rows.numbers
          ? _mm512_maskz_loadu_epi32(valid, rows.numbers + first)
          : _mm512_add_epi32(
                _mm512_set1_epi32(static_cast<int32_t>(rows.first + static_cast<uint32_t>(first))),
                iota);
  int64_t size = x.sizes[q];
  int32_t* pool = x.keys + q * x.capacity;
  uint32_t* found = x.rows + q * x.capacity;
  _mm512_storeu_si512(pool + size, _mm512_maskz_compress_epi32(take, keys));
  _mm512_storeu_si512(found + size, _mm512_maskz_compress_epi32(take, numbers));
  size += __builtin_popcount(take);
  if (size > x.capacity - 16)
    size = k.keep_largest(pool, found, size, x.keep, x.thresholds + q);
  x.sizes[q] = size;
}

template <bool kBias>
struct Offer {
  const TileRows& rows;
  const TileQueries& x;
  const Kernels& k;

  SOARDB_INLINE_MEMBER void operator()(const int32_t* c, int64_t first, int64_t count,
                                       int64_t panel) const {
    const __m512i thresholds = _mm512_loadu_si512(x.thresholds + 16 * panel);
    uint32_t columns;
    if constexpr (kBias) {
      const __m512 steps = _mm512_loadu_ps(x.steps + 16 * panel);
      columns = _mm512_cmp_ps_mask(column_maxima(c, steps, rows.bias + first),
                                   from_sortable(thresholds), _CMP_GT_OQ);
    } else {
      columns = _mm512_cmpgt_epi32_mask(column_maxima(c), thresholds);
    }
    for (; columns; columns &= columns - 1)
      push_column<kBias>(c, rows, first, count, x, 16 * panel + __builtin_ctz(columns), k);
  }
};

template <bool kBias>
struct Highest {
  const TileRows& rows;
  const TileQueries& x;
  int32_t* out;

  SOARDB_INLINE_MEMBER void operator()(const int32_t* c, int64_t first, int64_t,
                                       int64_t panel) const {
    __m512i best;
    if constexpr (kBias)
      best = sortable(
          column_maxima(c, _mm512_loadu_ps(x.steps + 16 * panel), rows.bias + first));
    else
      best = column_maxima(c);
    _mm512_storeu_si512(out + (first / 16 * x.panels + panel) * 16, best);
  }
};

// The including file has each_tile(rows, queries, consume).
static void scan(const TileRows& rows, const TileQueries& x, const Kernels& k) {
  if (rows.bias)
    each_tile(rows, x, Offer<true>{rows, x, k});
  else
    each_tile(rows, x, Offer<false>{rows, x, k});
}
static void maxima(const TileRows& rows, const TileQueries& x, int32_t* out) {
  if (rows.bias)
    each_tile(rows, x, Highest<true>{rows, x, out});
  else
    each_tile(rows, x, Highest<false>{rows, x, out});
}
