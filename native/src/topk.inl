// Selection over scores that are there, and 4- and 8-bit rows scored tile by tile.
//
//   kernels_common.inl -> [topk.inl]; the loops around it are in topk.cpp
//
// soardb/kernels/topk_reference.py says what each function computes. A comparison with NaN fails and
// nothing is below -inf, so neither is ever taken.

// Which of sixteen lanes, in the form that an instruction set likes best.
#if defined(__AVX512F__)
using Lanes16 = __mmask16;
SOARDB_INLINE Lanes16 above(F16 a, F16 b) {
  return _mm512_cmp_ps_mask((__m512)a.v[0], (__m512)b.v[0], _CMP_GT_OQ);
}
SOARDB_INLINE uint32_t bits_of(Lanes16 lanes) { return lanes; }
SOARDB_INLINE Lanes16 either(Lanes16 a, Lanes16 b) { return _kor_mask16(a, b); }
SOARDB_INLINE F16 pick(Lanes16 lanes, F16 a, F16 b) {
  return F16{{(FV)_mm512_mask_blend_ps(lanes, (__m512)b.v[0], (__m512)a.v[0])}};
}
SOARDB_INLINE I16 pick(Lanes16 lanes, I16 a, I16 b) {
  return I16{{(IV)_mm512_mask_blend_epi32(lanes, (__m512i)b.v[0], (__m512i)a.v[0])}};
}
#else
struct Lanes16 {
  IV v[kParts];
};
SOARDB_INLINE Lanes16 above(F16 a, F16 b) {
  Lanes16 r;
  SOARDB_PARTS r.v[p] = a.v[p] > b.v[p];
  return r;
}
SOARDB_INLINE uint32_t bits_of(const Lanes16& lanes) {
#if defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_ps((__m256)lanes.v[0]) |
                               _mm256_movemask_ps((__m256)lanes.v[1]) << 8);
#else
  uint32_t bits = 0;
  SOARDB_PARTS for (int l = 0; l < kLanes; ++l)
    bits |= static_cast<uint32_t>(lanes.v[p][l] & 1) << (p * kLanes + l);
  return bits;
#endif
}
SOARDB_INLINE Lanes16 either(Lanes16 a, Lanes16 b) {
  SOARDB_PARTS a.v[p] |= b.v[p];
  return a;
}
SOARDB_INLINE F16 pick(Lanes16 lanes, F16 a, F16 b) {
  SOARDB_PARTS a.v[p] = lanes.v[p] ? a.v[p] : b.v[p];
  return a;
}
SOARDB_INLINE I16 pick(Lanes16 lanes, I16 a, I16 b) {
  SOARDB_PARTS a.v[p] = lanes.v[p] ? a.v[p] : b.v[p];
  return a;
}
#endif

SOARDB_INLINE I16 rows_of(int32_t row) {
  I16 r;
  SOARDB_PARTS r.v[p] = IV{} + row;
  return r;
}
// Up to sixteen scores; the lanes beyond `count` are -inf.
SOARDB_INLINE F16 load_scores(const float* x, int64_t count) {
  if (count >= 16) return load16(x);
  float some[16];
  for (int l = 0; l < 16; ++l) some[l] = l < count ? x[l] : -__builtin_inff();
  return load16(some);
}

// ---------------------------------------------------------------- buckets

// The best kKeep of each of sixteen neighbouring buckets, in registers.
template <int kKeep>
struct Kept16 {
  F16 value[kKeep];
  I16 turn[kKeep];  // in which round the value came
};

// Offers one score to each of the buckets. Among equals the earlier stays ahead: a score must exceed
// what it displaces, and what is displaced displaces all that follow.
template <int kKeep>
SOARDB_INLINE void offer16(Kept16<kKeep>& kept, F16 value, int32_t turn) {
  Lanes16 moved = above(value, kept.value[kKeep - 1]);
  I16 now = rows_of(turn);
  if constexpr (kKeep > 1) {
    if (!bits_of(moved)) return;
    moved = above(value, kept.value[0]);
  }
#pragma GCC unroll 16
  for (int j = 0; j < kKeep; ++j) {
    const F16 held = kept.value[j];
    const I16 held_turn = kept.turn[j];
    kept.value[j] = pick(moved, value, held);
    kept.turn[j] = pick(moved, now, held_turn);
    if (j + 1 == kKeep) break;
    value = pick(moved, held, value);
    now = pick(moved, held_turn, now);
    moved = either(moved, above(value, kept.value[j + 1]));
  }
}

// Buckets [bucket, bucket + 16 * kWide), of which `lanes` exist, from all n scores.
template <int kKeep, int kWide>
SOARDB_INLINE void fill_buckets(const float* scores, int64_t n, int64_t count, int64_t bucket,
                                int64_t lanes, float* values, int32_t* rows) {
  Kept16<kKeep> kept[kWide];
  for (Kept16<kKeep>& some : kept)
    for (int j = 0; j < kKeep; ++j) {
      some.value[j] = set16(-__builtin_inff());
      some.turn[j] = rows_of(-1);
    }
  const int64_t rounds = n / count, left = n % count - bucket;
  const float* at = scores + bucket;
  int32_t turn = 0;
  if (lanes == 16 * kWide)
    for (; turn < rounds; ++turn, at += count)
#pragma GCC unroll 4
      for (int w = 0; w < kWide; ++w) offer16(kept[w], load16(at + 16 * w), turn);
  for (; turn <= rounds; ++turn, at += count) {
    const int64_t here = turn < rounds || lanes < left ? lanes : left;
    for (int w = 0; w < kWide && 16 * w < here; ++w)
      offer16(kept[w], load_scores(at + 16 * w, here - 16 * w), turn);
  }
  for (int w = 0; w < kWide; ++w)
    for (int j = 0; j < kKeep; ++j) {
      float best[16];
      int32_t turns[16];
      store16(best, kept[w].value[j]);
      __builtin_memcpy(turns, &kept[w].turn[j], sizeof turns);
      const int64_t to = bucket + 16 * w, some = lanes - 16 * w < 16 ? lanes - 16 * w : 16;
      for (int64_t l = 0; l < some; ++l) {
        values[j * count + to + l] = best[l];
        rows[j * count + to + l] =
            turns[l] < 0 ? -1 : static_cast<int32_t>(turns[l] * count + to + l);
      }
    }
}

template <int kKeep, int kWide>
static void fill_all(const float* scores, int64_t n, int64_t count, float* values, int32_t* rows) {
  int64_t b = 0;
  for (; b + 16 * kWide <= count; b += 16 * kWide)
    fill_buckets<kKeep, kWide>(scores, n, count, b, 16 * kWide, values, rows);
  for (; b < count; b += 16)
    fill_buckets<kKeep, 1>(scores, n, count, b, count - b < 16 ? count - b : 16, values, rows);
}

// Any number of survivors, one bucket after the other.
static void fill_slowly(const float* scores, int64_t n, int64_t count, int64_t keep, float* values,
                        int32_t* rows) {
  for (int64_t i = 0; i < keep * count; ++i) {
    values[i] = -__builtin_inff();
    rows[i] = -1;
  }
  for (int64_t b = 0; b < count; ++b)
    for (int64_t i = b; i < n; i += count) {
      int64_t j = keep - 1;
      if (!(scores[i] > values[j * count + b])) continue;
      for (; j > 0 && scores[i] > values[(j - 1) * count + b]; --j) {
        values[j * count + b] = values[(j - 1) * count + b];
        rows[j * count + b] = rows[(j - 1) * count + b];
      }
      values[j * count + b] = scores[i];
      rows[j * count + b] = static_cast<int32_t>(i);
    }
}

// Deals n scores into buckets, score i to bucket i % count; the survivors of all buckets stand side
// by side, [keep][count], best first, rows -1 where none.
static void bucket_scores(const float* scores, int64_t n, int64_t count, int64_t keep,
                          float* values, int32_t* rows) {
  switch (keep) {
    case 1: return fill_all<1, 4>(scores, n, count, values, rows);
    case 2: return fill_all<2, 2>(scores, n, count, values, rows);
    case 3: return fill_all<3, 1>(scores, n, count, values, rows);
    case 4: return fill_all<4, 1>(scores, n, count, values, rows);
    case 5: return fill_all<5, 1>(scores, n, count, values, rows);
    case 6: return fill_all<6, 1>(scores, n, count, values, rows);
    case 7: return fill_all<7, 1>(scores, n, count, values, rows);
    case 8: return fill_all<8, 1>(scores, n, count, values, rows);
    default: return fill_slowly(scores, n, count, keep, values, rows);
  }
}

// ---------------------------------------------------------------- the scan against a threshold

SOARDB_INLINE void push_scores(Pool& pool, const float* scores, uint32_t first, uint32_t mask) {
  int32_t keys[16];
  sortable16(scores, keys);
  push(pool, load_sums(keys), first, mask);
}

// Scores [0, n), numbered from `first` on, into a pool that the caller keeps from call to call; a
// threshold of INT32_MIN says that nothing was dropped yet. Returns the pool's size.
static int64_t select_scores(const float* scores, int64_t n, int64_t first, int64_t keep,
                             int64_t capacity, int32_t* keys, uint32_t* rows, int64_t size,
                             int32_t* threshold) {
  Pool pool{keys, rows, keep, capacity, size, *threshold, *threshold == INT32_MIN};
  const auto bar_of = [&] {
    return set16(pool.open ? -__builtin_inff() : from_sortable(pool.threshold));
  };
  F16 bar = bar_of();
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    const float* at = scores + i;
    uint64_t mask = 0;
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q)
      mask |= static_cast<uint64_t>(bits_of(above(load16(at + 16 * q), bar))) << (16 * q);
    if (!mask) continue;
    for (int q = 0; q < 4; ++q, mask >>= 16)
      if (mask & 0xFFFF)
        push_scores(pool, at + 16 * q, static_cast<uint32_t>(first + i + 16 * q),
                    static_cast<uint32_t>(mask & 0xFFFF));
    bar = bar_of();
  }
  for (; i < n; i += 16) {
    const int64_t count = n - i < 16 ? n - i : 16;
    float some[16];
    store16(some, load_scores(scores + i, count));
    const uint32_t mask = bits_of(above(load16(some), bar));
    if (!mask) continue;
    push_scores(pool, some, static_cast<uint32_t>(first + i), mask);
    bar = bar_of();
  }
  *threshold = pool.open ? INT32_MIN : pool.threshold;
  return pool.size;
}

// ---------------------------------------------------------------- 4- and 8-bit rows

// Products of 16 * kBlocks packed rows of nibbles (0..15 for -8..7) with signed bytes: the lines of
// reference.pack_codes.
template <int kBlocks>
SOARDB_INLINE void score_nibbles(const uint8_t* packed, int64_t lines, const int8_t* query,
                                 int32_t correction, int32_t* out) {
#if defined(__AVX512VNNI__)
  const __m512i nibble = _mm512_set1_epi8(0x0F);
  __m512i low[kBlocks], high[kBlocks];
#pragma GCC unroll 4
  for (int b = 0; b < kBlocks; ++b) {
    low[b] = _mm512_set1_epi32(-correction);
    high[b] = _mm512_setzero_si512();
  }
  for (int64_t g = 0; g < lines; ++g) {
    int32_t four[2];
    __builtin_memcpy(four, query + 8 * g, 8);
    const __m512i left = _mm512_set1_epi32(four[0]), right = _mm512_set1_epi32(four[1]);
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b) {
      const __m512i x = _mm512_loadu_si512(packed + 64 * (b * lines + g));
      low[b] = _mm512_dpbusd_epi32(low[b], _mm512_and_si512(x, nibble), left);
      high[b] = _mm512_dpbusd_epi32(high[b], _mm512_and_si512(_mm512_srli_epi16(x, 4), nibble),
                                    right);
    }
  }
#pragma GCC unroll 4
  for (int b = 0; b < kBlocks; ++b)
    _mm512_storeu_si512(out + 16 * b, _mm512_add_epi32(low[b], high[b]));
#elif defined(__AVX2__)
  const __m256i nibble = _mm256_set1_epi8(0x0F), ones = _mm256_set1_epi16(1);
  __m256i sums[2 * kBlocks];
#pragma GCC unroll 8
  for (int h = 0; h < 2 * kBlocks; ++h) sums[h] = _mm256_set1_epi32(-correction);
  for (int64_t g = 0; g < lines; ++g) {
    int32_t four[2];
    __builtin_memcpy(four, query + 8 * g, 8);
    const __m256i left = _mm256_set1_epi32(four[0]), right = _mm256_set1_epi32(four[1]);
#pragma GCC unroll 8
    for (int h = 0; h < 2 * kBlocks; ++h) {
      const __m256i x = _mm256_loadu_si256(
          (const __m256i*)(packed + 64 * (h / 2 * lines + g) + 32 * (h % 2)));
      // Two pairs of products of at most 15 * 127 each fit a 16-bit lane.
      const __m256i pairs = _mm256_add_epi16(
          _mm256_maddubs_epi16(_mm256_and_si256(x, nibble), left),
          _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(x, 4), nibble), right));
      sums[h] = _mm256_add_epi32(sums[h], _mm256_madd_epi16(pairs, ones));
    }
  }
#pragma GCC unroll 8
  for (int h = 0; h < 2 * kBlocks; ++h) _mm256_storeu_si256((__m256i*)(out + 8 * h), sums[h]);
#else
  for (int b = 0; b < kBlocks; ++b, out += 16) {
    const int8_t* q = query;
    for (int i = 0; i < 16; ++i) out[i] = -correction;
    for (int64_t g = 0; g < lines; ++g, packed += 64, q += 8)
      for (int i = 0; i < 16; ++i)
        for (int l = 0; l < 4; ++l) {
          const int byte = packed[4 * i + l];
          out[i] += (byte & 15) * q[l] + (byte >> 4) * q[4 + l];
        }
  }
#endif
}

// Scores of nblock blocks of 16 rows: `units` lines of 64 bytes a block, bits 4 or 8. products is
// room for 16 * nblock numbers.
static void quantized_scores(const uint8_t* codes, int64_t bits, int64_t nblock, int64_t units,
                             const int8_t* query, const float* scale, int32_t* products,
                             float* out) {
  if (bits == 8) {
    score_blocks(codes, nblock, units, query, 128 * sum_bytes(query, 4 * units), products);
  } else {
    const int32_t correction = 8 * sum_bytes(query, 8 * units);
    int64_t b = 0;
    for (; b + 4 <= nblock; b += 4)
      score_nibbles<4>(codes + b * units * kLine, units, query, correction, products + 16 * b);
    for (; b < nblock; ++b)
      score_nibbles<1>(codes + b * units * kLine, units, query, correction, products + 16 * b);
  }
  for (int64_t i = 0; i < 16 * nblock; i += 16)
    store16(out + i, to_float(products + i) * load16(scale + i));
}
