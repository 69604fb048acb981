// The streams of the emulated device: queues of work that is done at the pace of cuda::set_pace
// (kernels/core/runtime.h), in order within a stream, and between streams only as far as events say. Like a GPU, it
// lets the host run ahead: work must hold what it needs by value. It is for one host thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/core/stream.h"

namespace depthstill::simt {

using Work = std::function<void()>;
using Graph = std::vector<Work>;

// Gives `work` to the stream with this handle or, while it is being captured, to the graph.
void submit(void* stream, Work work);

// The same for the CPU's kernels, which stand in for libraries: they get scratch memory of their own.
void submit_on_cpu(Stream stream, std::function<void(Stream cpu)> work);

// A Point says what a stream was given so far.
struct Point {
  void* stream = nullptr;
  uint64_t items = 0;
};
Point now(void* stream);
void wait(void* stream, const Point& point);  // what `stream` is given from now on is done after it

// These return when that has been done. An Error of the work (a kernel that the emulator accuses) surfaces here, as a
// GPU's does.
void finish(const Point& point);
void finish_all();

bool capturing(void* stream);
bool capturing_any();
void begin_capture(void* stream);
std::shared_ptr<const Graph> end_capture(void* stream);  // null if nothing was being captured

}  // namespace depthstill::simt
