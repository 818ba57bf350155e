// Codes appended to growable lists, one after the other: what an add does to the arena in place.
//
//   module.cpp -> [lists.cpp]
//
// soardb/kernels/reference.py, append_codes, says what happens; nothing here allocates. Bytes are
// moved, not computed, so one version serves every instruction set.
#include <cstring>

#include "soardb/kernels.hpp"

namespace soardb {
namespace {

// Move a full list to the end of the arena, with half as much room again; false where none is left.
bool move_list(const Lists& x, int32_t list, int64_t blocks, int64_t* used) {
  const int64_t wanted = blocks + 1, bytes = x.m / 8 * kLine;
  const int64_t room = wanted + (wanted / 2 > 1 ? wanted / 2 : 1);
  if (*used + room > x.nblock) return false;
  std::memcpy(x.codes + *used * bytes, x.codes + x.start[list] * bytes, blocks * bytes);
  std::memcpy(x.rows + *used * kBlock, x.rows + x.start[list] * kBlock,
              blocks * kBlock * sizeof(uint32_t));
  x.start[list] = *used;
  x.room[list] = room;
  *used += room;
  return true;
}

}  // namespace

int64_t append_codes(const Lists& x, int64_t n, const int32_t* parts, const uint32_t* rows,
                     const uint8_t* codes, int64_t* used) {
  const int64_t lines = x.m / 8, bytes = lines * kLine;
  for (int64_t i = 0; i < n; ++i, codes += x.m) {
    const int32_t list = parts[i];
    const int64_t blocks = x.count[list] / kBlock, lane = x.count[list] % kBlock;
    if (lane == 0) {
      if (blocks == x.room[list] && !move_list(x, list, blocks, used)) return i;
      std::memset(x.codes + (x.start[list] + blocks) * bytes, 0, bytes);
      std::memset(x.rows + (x.start[list] + blocks) * kBlock, 0, kBlock * sizeof(uint32_t));
    }
    const int64_t block = x.start[list] + blocks;
    uint8_t* out = x.codes + block * bytes + 4 * lane;
    for (int64_t g = 0; g < lines; ++g)
      for (int64_t l = 0; l < 4; ++l)
        out[g * kLine + l] = static_cast<uint8_t>(codes[8 * g + l] | codes[8 * g + 4 + l] << 4);
    x.rows[block * kBlock + lane] = rows[i];
    ++x.count[list];
  }
  return n;
}

}  // namespace soardb
