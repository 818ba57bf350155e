// Threads that live for one call: no pool, nothing left behind.
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "soardb/kernels.hpp"

namespace soardb {

void parallel(int64_t n, int64_t grain, int threads,
              const std::function<void(int64_t, int64_t)>& body) {
  const int64_t pieces = ceil_div(n, grain);
  if (threads <= 1 || pieces <= 1) {
    for (int64_t i = 0; i < n; i += grain) body(i, i + grain < n ? i + grain : n);
    return;
  }
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  std::mutex guard;
  const auto work = [&] {
    try {
      for (int64_t piece = next++; piece < pieces; piece = next++) {
        const int64_t begin = piece * grain;
        body(begin, begin + grain < n ? begin + grain : n);
      }
    } catch (...) {
      const std::lock_guard<std::mutex> lock(guard);
      failure = std::current_exception();
      next = pieces;
    }
  };
  std::vector<std::thread> helpers;
  const int64_t wanted = pieces < threads ? pieces : threads;
  helpers.reserve(wanted);
  try {
    for (int64_t i = 1; i < wanted; ++i) helpers.emplace_back(work);
  } catch (const std::system_error&) {
    // The system grants no more threads: those that there are do the work.
  }
  work();
  for (std::thread& helper : helpers) helper.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace soardb
