// kernels/core/runtime.h on host memory, for builds without CUDA. set_schedule is in simt.cpp,
// set_pace in queue.cpp.
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "kernels/core/dry_run.h"
#include "kernels/core/dry_runtime.h"
#include "kernels/core/error.h"
#include "kernels/core/messages.h"
#include "kernels/core/runtime.h"
#include "kernels/simt/queue.h"

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
  check(!simt::capturing_any(), "cuda: allocating while a graph is captured, which CUDA refuses");
  void* pointer = nullptr;
  return posix_memalign(&pointer, 256, bytes) == 0 ? pointer : nullptr;
}

void free_device(void* pointer) noexcept {
  if (dry_running()) return dry::free_device(pointer);
  try {
    simt::finish_all();
  } catch (const Error& error) {
    send_message("cuda: free: ", error.what());
  }
  std::free(pointer);
}

void copy(void* to, const void* from, size_t bytes, Direction direction, Stream stream) {
  if (dry_running()) return dry::copy(to, from, bytes, direction);
  check(direction == Direction::kOnDevice || !simt::capturing(stream.handle),
        "cuda: copying between host and device while a graph is captured, which CUDA refuses");
  if (bytes > 0) simt::submit(stream.handle, [=] { std::memcpy(to, from, bytes); });
}

void zero(void* to, size_t bytes, Stream stream) {
  if (dry_running()) return dry::zero(to, bytes);
  if (bytes > 0) simt::submit(stream.handle, [=] { std::memset(to, 0, bytes); });
}

void synchronize(Stream stream) { dry_running() ? dry::synchronize() : simt::finish(simt::now(stream.handle)); }

void* create_stream() {
  if (dry_running()) return dry::new_handle();
  static uintptr_t handles = 0;
  return reinterpret_cast<void*>(++handles);
}
void destroy_stream(void*) noexcept {}

void* malloc_pinned(size_t bytes) {
  void* pointer = std::malloc(bytes);
  check(pointer != nullptr, "cuda: allocating ", bytes, " bytes of host memory failed");
  return pointer;
}
void free_pinned(void* pointer) noexcept { std::free(pointer); }

void* create_event() { return dry_running() ? dry::new_handle() : new simt::Point; }
void destroy_event(void* event) noexcept {
  if (!dry_running()) delete static_cast<simt::Point*>(event);
}
void record_event(void* event, Stream stream) {
  if (!dry_running()) *static_cast<simt::Point*>(event) = simt::now(stream.handle);
}
void wait_for_event(Stream stream, void* event) {
  if (!dry_running()) simt::wait(stream.handle, *static_cast<simt::Point*>(event));
}
void synchronize_event(void* event) {
  dry_running() ? dry::synchronize_event() : simt::finish(*static_cast<simt::Point*>(event));
}

bool can_capture() {
  const char* sync = std::getenv("DEPTHSTILL_SYNC");
  return sync == nullptr || sync[0] != '1';
}
bool capturing(Stream stream) { return dry_running() ? dry::capturing() : simt::capturing(stream.handle); }
void begin_capture(Stream stream) { dry_running() ? dry::begin_capture() : simt::begin_capture(stream.handle); }

// A graph outlives its handle in the streams that have yet to run it.
using Executable = std::shared_ptr<const simt::Graph>;

void* end_capture(Stream stream) {
  if (dry_running()) return dry::end_capture();
  Executable graph = simt::end_capture(stream.handle);
  check(graph != nullptr, "cuda: the end of a capture that was not begun");
  return new Executable(std::move(graph));
}
void abandon_capture(Stream stream) noexcept {
  dry_running() ? dry::abandon_capture() : static_cast<void>(simt::end_capture(stream.handle));
}
void launch_graph(void* graph, Stream stream) {
  if (dry_running()) return dry::launch_graph(graph);
  check(!simt::capturing(stream.handle), "cuda: launching a graph while one is captured, which CUDA refuses");
  simt::submit(stream.handle, [nodes = *static_cast<Executable*>(graph)] {
    for (const simt::Work& node : *nodes) node();
  });
}
void destroy_graph(void* graph) noexcept {
  dry_running() ? dry::destroy_graph(graph) : delete static_cast<Executable*>(graph);
}

}  // namespace depthstill::cuda
