// Folding sixteen lanes into one inside registers: the same order of additions as folds_plain.inl.

SOARDB_INLINE float lowest8(__m256 x) {
  const __m128 four = _mm_min_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 two = _mm_min_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_min_ss(two, _mm_movehdup_ps(two)));
}
SOARDB_INLINE float lowest16(F16 a) {
  return lowest8(_mm256_min_ps((__m256)a.v[0], (__m256)a.v[1]));
}
SOARDB_INLINE float highest16(F16 a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  const __m256 x = _mm256_max_ps((__m256)a.v[0], (__m256)a.v[1]);
  return -lowest8(_mm256_xor_ps(x, sign));
}
SOARDB_INLINE int argmin16(F16 a) {
  const __m256 least = _mm256_set1_ps(lowest16(a));
  const int low = _mm256_movemask_ps(_mm256_cmp_ps((__m256)a.v[0], least, _CMP_EQ_OQ));
  const int high = _mm256_movemask_ps(_mm256_cmp_ps((__m256)a.v[1], least, _CMP_EQ_OQ));
  return __builtin_ctz(low | high << 8);
}
SOARDB_INLINE float fold16(F16 a) {
  return fold8(_mm256_add_ps((__m256)a.v[0], (__m256)a.v[1]));
}
