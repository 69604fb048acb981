// kernels/core/runtime.h on host memory, for builds without CUDA. set_schedule is in simt.cpp,
// set_pace in queue.cpp.
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "kernels/core/device_runtime.h"
#include "kernels/core/error.h"
#include "kernels/core/messages.h"
#include "kernels/simt/queue.h"

namespace depthstill::cuda {
namespace {

// A graph outlives its handle in the streams that have yet to run it.
using Executable = std::shared_ptr<const simt::Graph>;

class EmulatedRuntime final : public Runtime {
 public:
  int device_count(std::string*) override { return 1; }
  DeviceInfo device_info() override {
    DeviceInfo info;
    info.name = "SIMT emulator";
    info.multiprocessors = 1;
    const auto page_bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    info.total_bytes = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * page_bytes;
    info.free_bytes = static_cast<size_t>(sysconf(_SC_AVPHYS_PAGES)) * page_bytes;
    return info;
  }

  void* malloc_device(size_t bytes) override {
    check(!simt::capturing_any(), "cuda: allocating while a graph is captured, which CUDA refuses");
    void* pointer = nullptr;
    return posix_memalign(&pointer, 256, bytes) == 0 ? pointer : nullptr;
  }
  void free_device(void* pointer) noexcept override {
    try {
      simt::finish_all();
    } catch (const Error& error) {
      send_message("cuda: free: ", error.what());
    }
    std::free(pointer);
  }

  void copy(void* to, const void* from, size_t bytes, Direction direction, Stream stream) override {
    check(direction == Direction::kOnDevice || !simt::capturing(stream.handle),
          "cuda: copying between host and device while a graph is captured, which CUDA refuses");
    if (bytes > 0) simt::submit(stream.handle, [=] { std::memcpy(to, from, bytes); });
  }
  void zero(void* to, size_t bytes, Stream stream) override {
    if (bytes > 0) simt::submit(stream.handle, [=] { std::memset(to, 0, bytes); });
  }
  void synchronize(Stream stream) override { simt::finish(simt::now(stream.handle)); }

  void* create_stream() override { return reinterpret_cast<void*>(++streams_); }
  void destroy_stream(void*) noexcept override {}

  void* malloc_pinned(size_t bytes) override {
    void* pointer = std::malloc(bytes);
    check(pointer != nullptr, "cuda: allocating ", bytes, " bytes of host memory failed");
    return pointer;
  }
  void free_pinned(void* pointer) noexcept override { std::free(pointer); }

  void* create_event() override { return new simt::Point; }
  void destroy_event(void* event) noexcept override { delete static_cast<simt::Point*>(event); }
  void record_event(void* event, Stream stream) override {
    *static_cast<simt::Point*>(event) = simt::now(stream.handle);
  }
  void wait_for_event(Stream stream, void* event) override {
    simt::wait(stream.handle, *static_cast<simt::Point*>(event));
  }
  void synchronize_event(void* event) override { simt::finish(*static_cast<simt::Point*>(event)); }

  bool capturing(Stream stream) override { return simt::capturing(stream.handle); }
  void begin_capture(Stream stream) override { simt::begin_capture(stream.handle); }
  void* end_capture(Stream stream) override {
    Executable graph = simt::end_capture(stream.handle);
    check(graph != nullptr, "cuda: the end of a capture that was not begun");
    return new Executable(std::move(graph));
  }
  void abandon_capture(Stream stream) noexcept override { static_cast<void>(simt::end_capture(stream.handle)); }
  void launch_graph(void* graph, Stream stream) override {
    check(!simt::capturing(stream.handle), "cuda: launching a graph while one is captured, which CUDA refuses");
    simt::submit(stream.handle, [nodes = *static_cast<Executable*>(graph)] {
      for (const simt::Work& node : *nodes) node();
    });
  }
  void destroy_graph(void* graph) noexcept override { delete static_cast<Executable*>(graph); }

 private:
  uintptr_t streams_ = 0;
};

}  // namespace

Runtime& device_runtime() {
  static EmulatedRuntime& runtime = *new EmulatedRuntime;  // tensors with static lifetime may outlive it otherwise
  return runtime;
}

bool emulated() { return true; }
int driver_version() { return 0; }
int runtime_version() { return 0; }

}  // namespace depthstill::cuda
