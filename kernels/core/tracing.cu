#include <cuda_profiler_api.h>
#include <cuda_runtime.h>

#include "kernels/core/tracing.h"
#if defined(DEPTHSTILL_NVTX)
#include <nvtx3/nvToolsExt.h>
#endif

#include "kernels/core/dry_run.h"
#include "kernels/core/error.h"

namespace depthstill::cuda {
namespace {

void check_cuda(cudaError_t status, const char* what) {
  check(status == cudaSuccess, "cuda: ", what, ": ", cudaGetErrorString(status));
}

cudaEvent_t event_of(void* timestamp) { return static_cast<cudaEvent_t>(timestamp); }

}  // namespace

#if defined(DEPTHSTILL_NVTX)
void range_push(const char* name) noexcept { nvtxRangePushA(name); }
void range_pop() noexcept { nvtxRangePop(); }
#else
void range_push(const char*) noexcept {}
void range_pop() noexcept {}
#endif

void profiler_start() {
  if (!dry_running()) check_cuda(cudaProfilerStart(), "profiler start");
}
void profiler_stop() {
  if (!dry_running()) check_cuda(cudaProfilerStop(), "profiler stop");
}

void* create_timestamp() {
  if (dry_running()) return nullptr;
  cudaEvent_t event = nullptr;
  check_cuda(cudaEventCreate(&event), "create timestamp");
  return event;
}

void destroy_timestamp(void* timestamp) noexcept {
  if (!dry_running()) cudaEventDestroy(event_of(timestamp));
}

void take_timestamp(void* timestamp, Stream stream) noexcept {
  if (!dry_running()) cudaEventRecord(event_of(timestamp), static_cast<cudaStream_t>(stream.handle));
}

double elapsed_ms(void* from, void* to) {
  float ms = 0.0f;
  if (dry_running()) return 0.0;
  check_cuda(cudaEventElapsedTime(&ms, event_of(from), event_of(to)), "time between timestamps");
  return ms;
}

}  // namespace depthstill::cuda
