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

constexpr int kRuns = 10;
constexpr double kHopeless = 2.0, kJitterMs = 0.1;  // the host's pace shows in one run

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

double median_ms(Stream stream, double best_ms, const std::function<void()>& run) {
  const auto handle = static_cast<cudaStream_t>(stream.handle);
  const Event begin, end;
  const auto one_ms = [&] {
    float ms = 0.0f;
    check_cuda(cudaEventRecord(begin.get(), handle));
    run();
    check_cuda(cudaEventRecord(end.get(), handle));
    check_cuda(cudaEventSynchronize(end.get()));
    check_cuda(cudaEventElapsedTime(&ms, begin.get(), end.get()));
    return ms;
  };
  one_ms();  // loads the kernels
  const auto second = static_cast<double>(one_ms());
  if (second > kHopeless * best_ms + kJitterMs) return second;
  one_ms();
  std::array<float, kRuns> ms{};
  for (float& m : ms) m = one_ms();
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
