#include <cuda_runtime.h>

#include <cstdio>

#include "kernels/error.h"
#include "kernels/runtime.h"

namespace depthstill::cuda {
namespace {

void check_cuda(cudaError_t status, const char* what) {
  check(status == cudaSuccess, "cuda: ", what, ": ", cudaGetErrorString(status));
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
  static int devices = 0;
  static const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status == cudaSuccess && devices > 0) return devices;
  if (reason != nullptr) *reason = status == cudaSuccess ? "no CUDA device was found" : cudaGetErrorString(status);
  return 0;
}

void set_device(int device) { check_cuda(cudaSetDevice(device), "set device"); }

bool emulated() { return false; }

DeviceInfo device_info() {
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
  void* pointer = nullptr;
  const cudaError_t status = cudaMalloc(&pointer, bytes);
  if (status == cudaSuccess) return pointer;
  cudaGetLastError();  // out of memory is not sticky: leave no error behind for the next launch
  check(status == cudaErrorMemoryAllocation, "cuda: allocating ", bytes, " bytes: ", cudaGetErrorString(status));
  return nullptr;
}

void free_device(void* pointer) noexcept {
  const cudaError_t status = cudaFree(pointer);
  // At exit the driver may be gone before the last buffer, which is no error.
  if (status != cudaSuccess && status != cudaErrorCudartUnloading) {
    std::fprintf(stderr, "cuda: free: %s\n", cudaGetErrorString(status));
  }
}

void copy(void* to, const void* from, size_t bytes, Direction direction, Stream stream) {
  check_cuda(cudaMemcpyAsync(to, from, bytes, kind_of(direction), handle_of(stream)), "copy");
}

void zero(void* to, size_t bytes, Stream stream) {
  check_cuda(cudaMemsetAsync(to, 0, bytes, handle_of(stream)), "zero");
}

void synchronize(Stream stream) { check_cuda(cudaStreamSynchronize(handle_of(stream)), "synchronize"); }

void* create_stream() {
  cudaStream_t handle = nullptr;
  check_cuda(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking), "create stream");
  return handle;
}

void destroy_stream(void* handle) noexcept {
  const cudaError_t status = cudaStreamDestroy(static_cast<cudaStream_t>(handle));
  if (status != cudaSuccess && status != cudaErrorCudartUnloading) {
    std::fprintf(stderr, "cuda: destroy stream: %s\n", cudaGetErrorString(status));
  }
}

void set_schedule(Schedule, uint32_t) {}

}  // namespace depthstill::cuda
