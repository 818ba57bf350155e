// Lane by lane: appends the masked sums and their positions; returns how many.
static inline int64_t push_some(const Sums16& sums, uint32_t mask, uint32_t first, int32_t* keys,
                                uint32_t* values) {
  int32_t all[16];
  store_sums(all, sums);
  int64_t count = 0;
  for (; mask; mask &= mask - 1, ++count) {
    const int lane = __builtin_ctz(mask);
    keys[count] = all[lane];
    values[count] = first + static_cast<uint32_t>(lane);
  }
  return count;
}

static inline uint32_t allowed_lanes(const Filter& filter, const uint32_t* rows, uint32_t mask) {
  return allowed_few(filter, rows, mask);
}

// Two blocks at once pay only where the registers allow.
static inline void sums16_pair(const uint8_t* first, const uint8_t* second, int64_t lines,
                               const uint8_t* lut, int32_t bias, Sums16* out_first,
                               Sums16* out_second) {
  *out_first = sums16(first, lines, lut, bias);
  *out_second = sums16(second, lines, lut, bias);
}
