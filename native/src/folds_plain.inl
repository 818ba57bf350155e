// Folding sixteen lanes into one, lane by lane. kernels_common.inl includes this, or the level's own
// version of the same four functions.

SOARDB_INLINE float lowest16(F16 a) {
  float x[16];
  store16(x, a);
  float best = x[0];
  for (int i = 1; i < 16; ++i) best = x[i] < best ? x[i] : best;
  return best;
}
SOARDB_INLINE float highest16(F16 a) {
  float x[16];
  store16(x, a);
  float best = x[0];
  for (int i = 1; i < 16; ++i) best = x[i] > best ? x[i] : best;
  return best;
}
SOARDB_INLINE int argmin16(F16 a) {
  float x[16];
  store16(x, a);
  int best = 0;
  for (int i = 1; i < 16; ++i) best = x[i] < x[best] ? i : best;
  return best;
}

// The order of the halves is laid down in reference.py, fold_lanes.
SOARDB_INLINE float fold16(F16 a) {
  float x[16];
  store16(x, a);
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) x[i] += x[half + i];
  return x[0];
}
