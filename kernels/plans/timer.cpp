#include "kernels/plans/timer.h"

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <cudnn.h>

#include <algorithm>
#include <array>

#include "kernels/dry_run.h"
#include "kernels/error.h"
#include "kernels/library_options.h"
#include "kernels/runtime.h"

namespace depthstill::plans {
namespace {

constexpr int kWarmUps = 3, kRuns = 10;

void check_cuda(cudaError_t status) { check(status == cudaSuccess, "timing: ", cudaGetErrorString(status)); }

class Event {
 public:
  Event() { check_cuda(cudaEventCreate(&event_)); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace

bool may_measure(Stream stream) {
  const LibraryOptions& options = library_options();
  if (!options.measure || options.deterministic || cuda::dry_running()) return false;
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(static_cast<cudaStream_t>(stream.handle), &status) == cudaSuccess &&
         status == cudaStreamCaptureStatusNone;
}

double median_ms(Stream stream, const std::function<void()>& run) {
  const auto handle = static_cast<cudaStream_t>(stream.handle);
  for (int i = 0; i < kWarmUps; ++i) run();
  const Event begin, end;
  std::array<float, kRuns> ms{};
  for (float& m : ms) {
    check_cuda(cudaEventRecord(begin.get(), handle));
    run();
    check_cuda(cudaEventRecord(end.get(), handle));
    check_cuda(cudaEventSynchronize(end.get()));
    check_cuda(cudaEventElapsedTime(&m, begin.get(), end.get()));
  }
  std::sort(ms.begin(), ms.end());
  return 0.5 * (static_cast<double>(ms[kRuns / 2 - 1]) + static_cast<double>(ms[kRuns / 2]));
}

PlanCache* device_cache(Stream stream) {
  if (!may_measure(stream)) return nullptr;
  // For the life of the process, like the plans themselves.
  static PlanCache& cache = *new PlanCache(
      library_options().cache_folder,
      concat_text(cuda::device_info().name, " cudnn ", cudnnGetVersion(), " cublaslt ", cublasLtGetVersion()));
  return &cache;
}

}  // namespace depthstill::plans
