// The plain primitives that need F16, which kernels_common.inl defines.

static inline F16 load_part(const float* x, int64_t count) {
  float part[16] = {};
  for (int64_t i = 0; i < count; ++i) part[i] = x[i];
  return load16(part);
}
static inline F16 to_float(const int32_t* x) {
  float out[16];
  for (int i = 0; i < 16; ++i) out[i] = static_cast<float>(x[i]);
  return load16(out);
}
static inline void sortable16(const float* x, int32_t* out) {
  for (int i = 0; i < 16; ++i) out[i] = sortable(x[i]);
}
static inline void store_bytes(uint8_t* out, F16 x) {
  float rounded[16];
  store16(rounded, x);
  for (int i = 0; i < 16; ++i) out[i] = static_cast<uint8_t>(rounded[i]);
}
