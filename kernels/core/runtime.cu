#include <cuda_runtime.h>

#include <algorithm>
#include <map>
#include <mutex>

#include "kernels/core/device_runtime.h"
#include "kernels/core/error.h"
#include "kernels/core/launch.h"
#include "kernels/core/messages.h"

namespace depthstill::cuda {
namespace {

void check_cuda(cudaError_t status, const char* what) {
  check(status == cudaSuccess, "cuda: ", what, ": ", cudaGetErrorString(status));
}

// Destructors report with this. At exit the driver may be gone before the last buffer, which is no error.
void report(cudaError_t status, const char* what) noexcept {
  if (status != cudaSuccess && status != cudaErrorCudartUnloading) {
    send_message("cuda: ", what, ": ", cudaGetErrorString(status));
  }
}

cudaStream_t handle_of(Stream stream) { return static_cast<cudaStream_t>(stream.handle); }

cudaMemcpyKind kind_of(Direction direction) {
  switch (direction) {
    case Direction::kToDevice:
      return cudaMemcpyHostToDevice;
    case Direction::kToHost:
      return cudaMemcpyDeviceToHost;
    case Direction::kOnDevice:
      break;
  }
  return cudaMemcpyDeviceToDevice;
}

class CudaRuntime final : public Runtime {
 public:
  int device_count(std::string* reason) override {
    static int devices = 0;
    static const cudaError_t status = cudaGetDeviceCount(&devices);
    if (status == cudaSuccess && devices > 0) return devices;
    if (reason != nullptr) *reason = status == cudaSuccess ? "no CUDA device was found" : cudaGetErrorString(status);
    return 0;
  }

  DeviceInfo device_info() override {
    int device = 0;
    check_cuda(cudaGetDevice(&device), "get device");
    cudaDeviceProp properties{};
    check_cuda(cudaGetDeviceProperties(&properties, device), "device properties");
    DeviceInfo info;
    info.name = properties.name;
    info.compute_major = properties.major;
    info.compute_minor = properties.minor;
    info.multiprocessors = properties.multiProcessorCount;
    check_cuda(cudaMemGetInfo(&info.free_bytes, &info.total_bytes), "memory info");
    return info;
  }

  void* malloc_device(size_t bytes) override {
    void* pointer = nullptr;
    const cudaError_t status = cudaMalloc(&pointer, std::max<size_t>(bytes, 1));  // it gives null for 0 bytes
    if (status == cudaSuccess) return pointer;
    cudaGetLastError();  // out of memory is not sticky: leave no error behind for the next launch
    check(status == cudaErrorMemoryAllocation, "cuda: allocating ", bytes, " bytes: ", cudaGetErrorString(status));
    return nullptr;
  }
  void free_device(void* pointer) noexcept override { report(cudaFree(pointer), "free"); }

  void copy(void* to, const void* from, size_t bytes, Direction direction, Stream stream) override {
    check_cuda(cudaMemcpyAsync(to, from, bytes, kind_of(direction), handle_of(stream)), "copy");
  }
  void zero(void* to, size_t bytes, Stream stream) override {
    check_cuda(cudaMemsetAsync(to, 0, bytes, handle_of(stream)), "zero");
  }
  void synchronize(Stream stream) override { check_cuda(cudaStreamSynchronize(handle_of(stream)), "synchronize"); }

  void* create_stream() override {
    cudaStream_t handle = nullptr;
    check_cuda(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking), "create stream");
    return handle;
  }
  void destroy_stream(void* handle) noexcept override {
    report(cudaStreamDestroy(static_cast<cudaStream_t>(handle)), "destroy stream");
  }

  void* malloc_pinned(size_t bytes) override {
    void* pointer = nullptr;
    check_cuda(cudaMallocHost(&pointer, bytes), "allocating pinned host memory");
    return pointer;
  }
  void free_pinned(void* pointer) noexcept override {
    if (pointer != nullptr) report(cudaFreeHost(pointer), "free pinned host memory");
  }

  void* create_event() override {
    cudaEvent_t event = nullptr;
    check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "create event");
    return event;
  }
  void destroy_event(void* event) noexcept override {
    report(cudaEventDestroy(static_cast<cudaEvent_t>(event)), "destroy event");
  }
  void record_event(void* event, Stream stream) override {
    check_cuda(cudaEventRecord(static_cast<cudaEvent_t>(event), handle_of(stream)), "record event");
  }
  void wait_for_event(Stream stream, void* event) override {
    check_cuda(cudaStreamWaitEvent(handle_of(stream), static_cast<cudaEvent_t>(event)), "wait for event");
  }
  void synchronize_event(void* event) override {
    check_cuda(cudaEventSynchronize(static_cast<cudaEvent_t>(event)), "synchronize event");
  }

  bool capturing(Stream stream) override {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check_cuda(cudaStreamIsCapturing(handle_of(stream), &status), "asking for a capture");
    return status != cudaStreamCaptureStatusNone;
  }
  void begin_capture(Stream stream) override {
    check_cuda(cudaStreamBeginCapture(handle_of(stream), cudaStreamCaptureModeThreadLocal), "begin capture");
  }
  void* end_capture(Stream stream) override {
    cudaGraph_t graph = nullptr;
    check_cuda(cudaStreamEndCapture(handle_of(stream), &graph), "end capture");
    cudaGraphExec_t executable = nullptr;
    const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
    cudaGraphDestroy(graph);
    check_cuda(status, "instantiate graph");
    return executable;
  }
  void abandon_capture(Stream stream) noexcept override {
    cudaGraph_t graph = nullptr;
    if (cudaStreamEndCapture(handle_of(stream), &graph) == cudaSuccess && graph != nullptr) cudaGraphDestroy(graph);
    cudaGetLastError();  // the error that ended the capture was reported already
  }
  void launch_graph(void* graph, Stream stream) override {
    check_cuda(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), handle_of(stream)), "launch graph");
  }
  void destroy_graph(void* graph) noexcept override {
    report(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)), "destroy graph");
  }
};

}  // namespace

Runtime& device_runtime() {
  static CudaRuntime& runtime = *new CudaRuntime;  // tensors with static lifetime may outlive it otherwise
  return runtime;
}

bool emulated() { return false; }

int driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}
int runtime_version() { return CUDART_VERSION; }

void set_schedule(Schedule, uint32_t) {}
void set_pace(Pace) {}

}  // namespace depthstill::cuda

namespace depthstill::detail {

bool raises_shared_bytes(const void* kernel, size_t bytes) {
  static std::mutex mutex;
  static auto& asked = *new std::map<const void*, size_t>();
  const std::scoped_lock lock(mutex);
  size_t& most = asked[kernel];
  if (bytes <= most) return false;
  most = bytes;
  return true;
}

}  // namespace depthstill::detail
