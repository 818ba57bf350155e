// The counters behind the stage marks.
//
//   stages.hpp -> [stages.cpp] -> module.cpp (stage_times)
#include "soardb/stages.hpp"

#include <chrono>
#include <thread>

namespace soardb {

#define SOARDB_STAGE_NAME(name, covers) #name,
#define SOARDB_STAGE_COVERS(name, covers) covers,
const char* stage_name(int stage) {
  static const char* const names[] = {SOARDB_STAGES(SOARDB_STAGE_NAME)};
  return names[stage];
}
const char* stage_covers(int stage) {
  static const char* const covers[] = {SOARDB_STAGES(SOARDB_STAGE_COVERS)};
  return covers[stage];
}

#ifdef SOARDB_PROFILE
constinit thread_local StageClock stage_clock{};

StageClock read_stages() { return stage_clock; }

void reset_stages() {
  stage_clock = StageClock{};
  stage_clock.mark = stage_ticks();
}

double nanoseconds_per_tick() {
  static const double length = [] {
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    const uint64_t ticks = stage_ticks();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const uint64_t passed = stage_ticks() - ticks;
    return std::chrono::duration<double, std::nano>(Clock::now() - start).count() /
           static_cast<double>(passed);
  }();
  return length;
}
#else
StageClock read_stages() { return {}; }
void reset_stages() {}
double nanoseconds_per_tick() { return 0; }
#endif

}  // namespace soardb
