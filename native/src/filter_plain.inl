// The filter's test lane by lane: the lanes of a mask whose rows may be returned. Every level has it
// for a few lanes, most have nothing better for sixteen.
static inline uint32_t allowed_few(const Filter& filter, const uint32_t* rows, uint32_t mask) {
  uint32_t allowed = 0;
  for (uint32_t left = mask; left; left &= left - 1) {
    const int lane = __builtin_ctz(left);
    const int64_t byte = rows[lane] >> 3;
    if (byte < filter.bytes) allowed |= (filter.bits[byte] >> (rows[lane] & 7) & 1u) << lane;
  }
  return allowed;
}
