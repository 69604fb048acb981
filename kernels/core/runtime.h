// The CUDA runtime as the engine sees it. runtime.cu is the real one; simt/runtime_host.cpp stands in for it in builds
// without CUDA, where "device" memory is host memory in blocks of exactly the requested size (so that ASan guards it).
// Everything here throws Error when CUDA reports one, except where noted. In a dry run (kernels/core/dry_run.h) both
// only keep a record.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/core/stream.h"

namespace depthstill::cuda {

// The number of GPUs that can be used; 0 without a driver or a GPU, and then *reason says why, in one line. Never
// throws.
int device_count(std::string* reason = nullptr);

// True where kernels run in the SIMT emulator.
bool emulated();

struct DeviceInfo {
  std::string name;
  int compute_major = 0, compute_minor = 0;
  int multiprocessors = 0;
  size_t total_bytes = 0, free_bytes = 0;
};
DeviceInfo device_info();  // properties of the current device

int driver_version();   // 13000 means 13.0; 0 without a driver; never throws
int runtime_version();  // version that this binary was built with

// The memory is aligned to 256 bytes, its contents are undefined; null when memory is full, and only then.
void* malloc_device(size_t bytes);
void free_device(void* pointer) noexcept;  // waits for kernels that use it; nothing to do for null

enum class Direction : uint8_t { kToDevice, kToHost, kOnDevice };

// These act in stream order; `from` may be reused and `to` may be read on the host only after synchronize(stream).
void copy(void* to, const void* from, size_t bytes, Direction direction, Stream stream);
void zero(void* to, size_t bytes, Stream stream);
void synchronize(Stream stream);

void* create_stream();  // a Stream's handle
void destroy_stream(void* handle) noexcept;

// Host memory that copies may use while the host goes on; throws Error when it is full.
void* malloc_pinned(size_t bytes);
void free_pinned(void* pointer) noexcept;  // nothing to do for null

// A point in a stream's work.
void* create_event();
void destroy_event(void* event) noexcept;
void record_event(void* event, Stream stream);    // the event follows what `stream` was given so far
void wait_for_event(Stream stream, void* event);  // what `stream` is given from now on waits; the host does not
void synchronize_event(void* event);              // the host waits

// Between begin and end, what `stream` is given becomes a graph instead of being run. Meanwhile this thread must not
// wait, allocate, or copy between host and device. Addresses and kernel arguments are frozen in the graph.
bool can_capture();  // false with DEPTHSTILL_SYNC=1
bool capturing(Stream stream);
void begin_capture(Stream stream);
void* end_capture(Stream stream);
void abandon_capture(Stream stream) noexcept;  // takes the place of end_capture after an error
void launch_graph(void* graph, Stream stream);
void destroy_graph(void* graph) noexcept;

// Order in which the emulator runs the threads between two barriers, and the blocks of a grid. Correct kernels give the
// same result under all of them. It has no effect on a GPU.
enum class Schedule : uint8_t { kForward, kReverse, kShuffled };
void set_schedule(Schedule schedule, uint32_t seed = 0);

// The pace says when the emulator does what its streams are given: correct host code gives the same result at any pace.
// It has no effect on a GPU.
enum class Pace : uint8_t {
  kAtOnce,       // faults surface in the line that launches
  kWhenAwaited,  // work is done as late as possible: no more than what the host waits for
  kOthersFirst,  // the same, but the other streams run ahead as far as events let them
};
void set_pace(Pace pace);  // waits for the device

}  // namespace depthstill::cuda
