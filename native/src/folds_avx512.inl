// Folding sixteen lanes into one inside a register: the same order of additions as folds_plain.inl.

SOARDB_INLINE float lowest16(F16 a) { return _mm512_reduce_min_ps((__m512)a.v[0]); }
SOARDB_INLINE float highest16(F16 a) { return _mm512_reduce_max_ps((__m512)a.v[0]); }
SOARDB_INLINE int argmin16(F16 a) {
  const __m512 x = (__m512)a.v[0];
  const __m512 least = _mm512_set1_ps(_mm512_reduce_min_ps(x));
  return __builtin_ctz(_mm512_cmp_ps_mask(x, least, _CMP_EQ_OQ));
}
SOARDB_INLINE float fold16(F16 a) {
  const __m512 x = (__m512)a.v[0];
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  return fold8(eight);
}
