#include "kernels/core/runtime.h"

#include <cstdlib>

#include "kernels/core/device_runtime.h"
#include "kernels/core/dry_run.h"

namespace depthstill::cuda {
namespace {

Runtime& runtime() { return dry_running() ? dry_runtime() : device_runtime(); }

}  // namespace

int device_count(std::string* reason) { return runtime().device_count(reason); }
DeviceInfo device_info() { return runtime().device_info(); }

void* malloc_device(size_t bytes) { return runtime().malloc_device(bytes); }
void free_device(void* pointer) noexcept { runtime().free_device(pointer); }

void copy(void* to, const void* from, size_t bytes, Direction direction, Stream stream) {
  runtime().copy(to, from, bytes, direction, stream);
}
void zero(void* to, size_t bytes, Stream stream) { runtime().zero(to, bytes, stream); }
void synchronize(Stream stream) { runtime().synchronize(stream); }

void* create_stream() { return runtime().create_stream(); }
void destroy_stream(void* handle) noexcept { runtime().destroy_stream(handle); }

void* malloc_pinned(size_t bytes) { return runtime().malloc_pinned(bytes); }
void free_pinned(void* pointer) noexcept { runtime().free_pinned(pointer); }

void* create_event() { return runtime().create_event(); }
void destroy_event(void* event) noexcept { runtime().destroy_event(event); }
void record_event(void* event, Stream stream) { runtime().record_event(event, stream); }
void wait_for_event(Stream stream, void* event) { runtime().wait_for_event(stream, event); }
void synchronize_event(void* event) { runtime().synchronize_event(event); }

bool can_capture() {
  const char* sync = std::getenv("DEPTHSTILL_SYNC");  // waits after every launch (kernels/core/launch.h)
  return sync == nullptr || sync[0] != '1';
}
bool capturing(Stream stream) { return runtime().capturing(stream); }
void begin_capture(Stream stream) { runtime().begin_capture(stream); }
void* end_capture(Stream stream) { return runtime().end_capture(stream); }
void abandon_capture(Stream stream) noexcept { runtime().abandon_capture(stream); }
void launch_graph(void* graph, Stream stream) { runtime().launch_graph(graph, stream); }
void destroy_graph(void* graph) noexcept { runtime().destroy_graph(graph); }

}  // namespace depthstill::cuda
