#include <cuda_runtime.h>

#include <algorithm>
#include <cstdlib>

#include "kernels/core/dry_run.h"
#include "kernels/core/dry_runtime.h"
#include "kernels/core/error.h"
#include "kernels/core/messages.h"
#include "kernels/core/runtime.h"

namespace depthstill::cuda {
namespace {

void check_cuda(cudaError_t status, const char* what) {
  check(status == cudaSuccess, "cuda: ", what, ": ", cudaGetErrorString(status));
}

// For destructors. At exit the driver may be gone before the last buffer, which is no error.
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

}  // namespace

int device_count(std::string* reason) {
  if (dry_running()) return 1;
  static int devices = 0;
  static const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status == cudaSuccess && devices > 0) return devices;
  if (reason != nullptr) *reason = status == cudaSuccess ? "no CUDA device was found" : cudaGetErrorString(status);
  return 0;
}

void set_device(int device) {
  if (!dry_running()) check_cuda(cudaSetDevice(device), "set device");
}

bool emulated() { return false; }

DeviceInfo device_info() {
  if (dry_running()) return dry::device_info();
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

int driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

int runtime_version() { return CUDART_VERSION; }

void* malloc_device(size_t bytes) {
  if (dry_running()) return dry::malloc_device(bytes);
  void* pointer = nullptr;
  const cudaError_t status = cudaMalloc(&pointer, std::max<size_t>(bytes, 1));  // of 0 bytes it gives null
  if (status == cudaSuccess) return pointer;
  cudaGetLastError();  // out of memory is not sticky: leave no error behind for the next launch
  check(status == cudaErrorMemoryAllocation, "cuda: allocating ", bytes, " bytes: ", cudaGetErrorString(status));
  return nullptr;
}

void free_device(void* pointer) noexcept {
  if (dry_running()) return dry::free_device(pointer);
  report(cudaFree(pointer), "free");
}

void copy(void* to, const void* from, size_t bytes, Direction direction, Stream stream) {
  if (dry_running()) return dry::copy(to, from, bytes, direction);
  check_cuda(cudaMemcpyAsync(to, from, bytes, kind_of(direction), handle_of(stream)), "copy");
}

void zero(void* to, size_t bytes, Stream stream) {
  if (dry_running()) return dry::zero(to, bytes);
  check_cuda(cudaMemsetAsync(to, 0, bytes, handle_of(stream)), "zero");
}

void synchronize(Stream stream) {
  if (dry_running()) return dry::synchronize();
  check_cuda(cudaStreamSynchronize(handle_of(stream)), "synchronize");
}

void* create_stream() {
  if (dry_running()) return dry::new_handle();
  cudaStream_t handle = nullptr;
  check_cuda(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking), "create stream");
  return handle;
}

void destroy_stream(void* handle) noexcept {
  if (!dry_running()) report(cudaStreamDestroy(static_cast<cudaStream_t>(handle)), "destroy stream");
}

void* malloc_pinned(size_t bytes) {
  void* pointer = nullptr;
  if (dry_running()) {
    pointer = std::malloc(bytes);
    check(pointer != nullptr, "cuda: allocating ", bytes, " bytes of host memory failed");
  } else {
    check_cuda(cudaMallocHost(&pointer, bytes), "allocating pinned host memory");
  }
  return pointer;
}

void free_pinned(void* pointer) noexcept {
  if (dry_running()) return std::free(pointer);
  if (pointer != nullptr) report(cudaFreeHost(pointer), "free pinned host memory");
}

void* create_event() {
  if (dry_running()) return dry::new_handle();
  cudaEvent_t event = nullptr;
  check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "create event");
  return event;
}

void destroy_event(void* event) noexcept {
  if (!dry_running()) report(cudaEventDestroy(static_cast<cudaEvent_t>(event)), "destroy event");
}

void record_event(void* event, Stream stream) {
  if (!dry_running()) check_cuda(cudaEventRecord(static_cast<cudaEvent_t>(event), handle_of(stream)), "record event");
}

void wait_for_event(Stream stream, void* event) {
  if (dry_running()) return;
  check_cuda(cudaStreamWaitEvent(handle_of(stream), static_cast<cudaEvent_t>(event)), "wait for event");
}

void synchronize_event(void* event) {
  if (dry_running()) return dry::synchronize_event();
  check_cuda(cudaEventSynchronize(static_cast<cudaEvent_t>(event)), "synchronize event");
}

bool can_capture() {
  const char* sync = std::getenv("DEPTHSTILL_SYNC");  // waits after every launch (kernels/core/launch.h)
  return sync == nullptr || sync[0] != '1';
}

bool capturing(Stream stream) {
  if (dry_running()) return dry::capturing();
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check_cuda(cudaStreamIsCapturing(handle_of(stream), &status), "asking for a capture");
  return status != cudaStreamCaptureStatusNone;
}

void begin_capture(Stream stream) {
  if (dry_running()) return dry::begin_capture();
  check_cuda(cudaStreamBeginCapture(handle_of(stream), cudaStreamCaptureModeThreadLocal), "begin capture");
}

void* end_capture(Stream stream) {
  if (dry_running()) return dry::end_capture();
  cudaGraph_t graph = nullptr;
  check_cuda(cudaStreamEndCapture(handle_of(stream), &graph), "end capture");
  cudaGraphExec_t executable = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  check_cuda(status, "instantiate graph");
  return executable;
}

void abandon_capture(Stream stream) noexcept {
  if (dry_running()) return dry::abandon_capture();
  cudaGraph_t graph = nullptr;
  if (cudaStreamEndCapture(handle_of(stream), &graph) == cudaSuccess && graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();  // the error that ended the capture was reported already
}

void launch_graph(void* graph, Stream stream) {
  if (dry_running()) return dry::launch_graph(graph);
  check_cuda(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), handle_of(stream)), "launch graph");
}

void destroy_graph(void* graph) noexcept {
  if (dry_running()) return dry::destroy_graph(graph);
  report(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)), "destroy graph");
}

void set_schedule(Schedule, uint32_t) {}
void set_pace(Pace) {}

}  // namespace depthstill::cuda
