// kernels/runtime.h on host memory, for builds without CUDA. set_schedule is in simt.cpp.
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "kernels/error.h"
#include "kernels/runtime.h"

namespace depthstill::cuda {

int device_count(std::string*) { return 1; }
void set_device(int device) { check(device == 0, "cuda: the emulator has device 0 only, got ", device); }
bool emulated() { return true; }

DeviceInfo device_info() {
  DeviceInfo info;
  info.name = "SIMT emulator";
  info.multiprocessors = 1;
  const auto page_bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  info.total_bytes = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * page_bytes;
  info.free_bytes = static_cast<size_t>(sysconf(_SC_AVPHYS_PAGES)) * page_bytes;
  return info;
}

int driver_version() { return 0; }
int runtime_version() { return 0; }

void* malloc_device(size_t bytes) {
  void* pointer = nullptr;
  return posix_memalign(&pointer, 256, bytes) == 0 ? pointer : nullptr;
}

void free_device(void* pointer) noexcept { std::free(pointer); }

void copy(void* to, const void* from, size_t bytes, Direction, Stream) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

void zero(void* to, size_t bytes, Stream) {
  if (bytes > 0) std::memset(to, 0, bytes);
}

void synchronize(Stream) {}

void* create_stream() { return nullptr; }
void destroy_stream(void*) noexcept {}

}  // namespace depthstill::cuda
