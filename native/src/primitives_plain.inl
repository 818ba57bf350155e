// Primitives that need no intrinsics: the scalar, AVX2 and NEON levels share them, each with its own
// flags. Declarations that kernels_common.inl completes come first.

struct F16;
static inline F16 load_part(const float* x, int64_t count);
static inline F16 to_float(const int32_t* x);
static inline void sortable16(const float* x, int32_t* out);
static inline void store_bytes(uint8_t* out, F16 x);

static inline void key_range(const int32_t* keys, int64_t n, int32_t* least, int32_t* most) {
  int32_t low = INT32_MAX, high = INT32_MIN;
  for (int64_t i = 0; i < n; ++i) {
    low = keys[i] < low ? keys[i] : low;
    high = keys[i] > high ? keys[i] : high;
  }
  *least = low;
  *most = high;
}

static inline int64_t count_at_least(const int32_t* keys, int64_t n, int32_t pivot) {
  int32_t count = 0;
  for (int64_t i = 0; i < n; ++i) count += keys[i] >= pivot;
  return count;
}

// In place and stable: keys above the pivot, and the first `ties` of those equal to it.
static inline int64_t compress_largest(int32_t* keys, uint32_t* values, int64_t n, int32_t pivot,
                                       int64_t ties) {
  int64_t kept = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t key = keys[i];
    const uint32_t value = values[i];
    const bool tie = key == pivot && ties > 0;
    ties -= tie;
    keys[kept] = key;
    values[kept] = value;
    kept += key > pivot || tie;
  }
  return kept;
}

static inline float from_sortable(int32_t key) {
  const int32_t bits = key ^ static_cast<int32_t>(static_cast<uint32_t>(key >> 31) >> 1);
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

static inline int32_t round_to_int(double x) {
  return static_cast<int32_t>((x + 6755399441055744.0) - 6755399441055744.0);  // half to even
}
