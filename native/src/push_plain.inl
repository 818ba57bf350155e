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

constexpr bool kBranchlessPush = false;
constexpr bool kFixesLines = false;

// Two blocks at once pay only where the registers allow.
template <int kLines>
static inline void sums16_pair(const uint8_t* first, const uint8_t* second, int64_t lines,
                               const uint8_t* lut, int32_t first_bias, int32_t second_bias,
                               const uint8_t* first_ahead, const uint8_t* second_ahead,
                               Sums16* out_first, Sums16* out_second) {
  for (int64_t g = 0; g < lines; ++g) {
    __builtin_prefetch(first_ahead + kLine * g);
    __builtin_prefetch(second_ahead + kLine * g);
  }
  *out_first = sums16(first, lines, lut, first_bias);
  *out_second = sums16(second, lines, lut, second_bias);
}
