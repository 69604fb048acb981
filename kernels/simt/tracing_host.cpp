// kernels/core/tracing.h without CUDA: no ranges, and timestamps of the host.
#include <chrono>

#include "kernels/core/dry_run.h"
#include "kernels/core/tracing.h"
#include "kernels/simt/queue.h"

namespace depthstill::cuda {
namespace {

using Clock = std::chrono::steady_clock;

Clock::time_point& time_of(void* timestamp) { return *static_cast<Clock::time_point*>(timestamp); }

}  // namespace

void range_push(const char*) noexcept {}
void range_pop() noexcept {}
void profiler_start() {}
void profiler_stop() {}

void* create_timestamp() { return new Clock::time_point; }
void destroy_timestamp(void* timestamp) noexcept { delete static_cast<Clock::time_point*>(timestamp); }
void take_timestamp(void* timestamp, Stream stream) noexcept {
  simt::submit(stream.handle, [timestamp] { time_of(timestamp) = Clock::now(); });
}
double elapsed_ms(void* from, void* to) {
  if (dry_running()) return 0.0;
  return std::chrono::duration<double, std::milli>(time_of(to) - time_of(from)).count();
}

}  // namespace depthstill::cuda
