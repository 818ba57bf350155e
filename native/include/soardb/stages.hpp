// Where the time of a query goes: clocks between its stages, compiled in on demand.
//
//   kernels_common.inl, dispatch.cpp, module.cpp -> [stages.hpp] -> stages.cpp -> stage_times()
//
// SOARDB_STAGE(lut); charges the rest of its scope to the stage `lut`. Scopes nest: an inner one
// takes its time away from the outer one, so that the stages add up to the whole and no tick is
// counted twice. A thread has its own counters. Without -DSOARDB_PROFILE=ON the mark is nothing.
//
// A scope costs two readings of the time stamp counter, about 20 ns: mark what is called once a
// query or once a list, not what is called once a block.
#pragma once

#include <cstdint>

// Name and what it covers. `outside` is the time between two searches.
#define SOARDB_STAGES(X)                                    \
  X(outside, "between searches")                            \
  X(search, "the rest of a search")                         \
  X(prepare, "query checked, normalised, centred")          \
  X(centroids, "centroids scored")                          \
  X(lists, "lists chosen and ordered")                      \
  X(lut, "look-up tables built")                            \
  X(scan, "codes of the lists scanned")                     \
  X(pool, "top of the scanned codes kept")                  \
  X(dedup, "copies of a row joined")                        \
  X(rerank, "rows scored by the 8-bit store")               \
  X(refine, "rows scored in float32")                       \
  X(order, "results sorted and written")

namespace soardb {

enum Stage : int {
#define SOARDB_STAGE_ENTRY(name, covers) kStage_##name,
  SOARDB_STAGES(SOARDB_STAGE_ENTRY)
#undef SOARDB_STAGE_ENTRY
      kStages
};

struct StageClock {
  uint64_t ticks[kStages];
  uint64_t calls[kStages];
  uint64_t mark;   // when `current` was last charged
  Stage current;
};

// stages.cpp: what the calling thread has counted since reset_stages, and the length of a tick.
// Without SOARDB_PROFILE there is nothing to tell and kHasStages is false.
#ifdef SOARDB_PROFILE
constexpr bool kHasStages = true;
#else
constexpr bool kHasStages = false;
#endif
const char* stage_name(int stage);
const char* stage_covers(int stage);
StageClock read_stages();
void reset_stages();
double nanoseconds_per_tick();

#ifdef SOARDB_PROFILE
extern constinit thread_local StageClock stage_clock;

inline __attribute__((always_inline)) uint64_t stage_ticks() {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  uint64_t ticks;
  asm volatile("mrs %0, cntvct_el0" : "=r"(ticks));
  return ticks;
#else
#error "SOARDB_PROFILE knows the tick counters of x86-64 and AArch64"
#endif
}

// Always inlined: an instruction set's own copy must not be taken for another's.
class StageScope {
 public:
  inline __attribute__((always_inline)) explicit StageScope(Stage stage)
      : clock_(stage_clock), outer_(clock_.current) {
    charge();
    clock_.current = stage;
    ++clock_.calls[stage];
  }
  inline __attribute__((always_inline)) ~StageScope() {
    charge();
    clock_.current = outer_;
  }
  StageScope(const StageScope&) = delete;
  StageScope& operator=(const StageScope&) = delete;

 private:
  inline __attribute__((always_inline)) void charge() {
    const uint64_t now = stage_ticks();
    clock_.ticks[clock_.current] += now - clock_.mark;
    clock_.mark = now;
  }
  StageClock& clock_;
  const Stage outer_;
};

#define SOARDB_STAGE(name) const ::soardb::StageScope stage_of_##name(::soardb::kStage_##name)
#else
#define SOARDB_STAGE(name) static_cast<void>(0)
#endif

}  // namespace soardb
