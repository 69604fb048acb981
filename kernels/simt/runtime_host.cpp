// kernels/runtime.h on host memory, for builds without CUDA. set_schedule is in simt.cpp.
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "kernels/dry_run.h"
#include "kernels/dry_runtime.h"
#include "kernels/error.h"
#include "kernels/runtime.h"

namespace depthstill::cuda {

int device_count(std::string*) { return 1; }
void set_device(int device) { check(device == 0, "cuda: the emulator has device 0 only, got ", device); }
bool emulated() { return true; }

DeviceInfo device_info() {
  if (dry_running()) return dry::device_info();
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
  if (dry_running()) return dry::malloc_device(bytes);
  void* pointer = nullptr;
  return posix_memalign(&pointer, 256, bytes) == 0 ? pointer : nullptr;
}

void free_device(void* pointer) noexcept { dry_running() ? dry::free_device(pointer) : std::free(pointer); }

void copy(void* to, const void* from, size_t bytes, Direction direction, Stream) {
  if (dry_running()) return dry::copy(to, from, bytes, direction);
  if (bytes > 0) std::memcpy(to, from, bytes);
}

void zero(void* to, size_t bytes, Stream) {
  if (dry_running()) return dry::zero(to, bytes);
  if (bytes > 0) std::memset(to, 0, bytes);
}

void synchronize(Stream) {
  if (dry_running()) dry::synchronize();
}

void* create_stream() { return dry_running() ? dry::new_handle() : nullptr; }
void destroy_stream(void*) noexcept {}

void* malloc_pinned(size_t bytes) {
  void* pointer = std::malloc(bytes);
  check(pointer != nullptr, "cuda: allocating ", bytes, " bytes of host memory failed");
  return pointer;
}
void free_pinned(void* pointer) noexcept { std::free(pointer); }

// Work is done when it is given: every event has happened.
void* create_event() { return nullptr; }
void destroy_event(void*) noexcept {}
void record_event(void*, Stream) {}
void wait_for_event(Stream, void*) {}
void synchronize_event(void*) {
  if (dry_running()) dry::synchronize_event();
}

bool can_capture() { return dry_running(); }
void begin_capture(Stream) {
  check(dry_running(), "cuda: the emulator captures no graphs");
  dry::begin_capture();
}
void* end_capture(Stream) { return dry::end_capture(); }
void abandon_capture(Stream) noexcept { dry::abandon_capture(); }
void launch_graph(void* graph, Stream) { dry::launch_graph(graph); }
void destroy_graph(void* graph) noexcept { dry::destroy_graph(graph); }

}  // namespace depthstill::cuda
