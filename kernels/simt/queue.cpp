#include "kernels/simt/queue.h"

#include <algorithm>
#include <deque>
#include <map>
#include <utility>

#include "kernels/core/error.h"
#include "kernels/core/runtime.h"

namespace depthstill::simt {
namespace {

struct Queue {
  std::deque<Work> waiting;
  uint64_t given = 0, done = 0;
  std::shared_ptr<Graph> graph;  // while it is being captured
};

struct State {
  std::map<void*, Queue> queues;
  cuda::Pace pace = cuda::Pace::kAtOnce;
};

State& state() {
  static State& s = *new State;  // tensors with static lifetime are freed later
  return s;
}

void refuse_capture(void* stream, const char* what) {
  check(!capturing(stream), "cuda: ", what, " while a graph is captured, which CUDA refuses");
}

// Work that is being done counts as done only at its end: it may wait for another stream, which waits for this one's
// earlier work.
void run_until(void* stream, uint64_t items) {
  Queue& queue = state().queues[stream];
  while (queue.done < items && !queue.waiting.empty()) {
    const Work work = std::move(queue.waiting.front());
    queue.waiting.pop_front();
    struct Done {
      uint64_t& count;
      ~Done() { ++count; }
    } const done{queue.done};
    work();
  }
}

class HostScratch final : public Scratch {
 public:
  void* get(size_t bytes) override {
    constexpr size_t kAlignment = 64;
    if (memory_.size() < bytes + kAlignment) memory_.resize(bytes + kAlignment);
    void* pointer = memory_.data();
    size_t room = memory_.size();
    return std::align(kAlignment, bytes, pointer, room);
  }

 private:
  std::vector<std::byte> memory_;
};

}  // namespace

void submit(void* stream, Work work) {
  Queue& queue = state().queues[stream];
  if (queue.graph != nullptr) return queue.graph->push_back(std::move(work));
  ++queue.given;
  queue.waiting.push_back(std::move(work));
  if (state().pace == cuda::Pace::kAtOnce) run_until(stream, queue.given);
}

void submit_on_cpu(Stream stream, std::function<void(Stream cpu)> work) {
  static HostScratch& scratch = *new HostScratch;
  submit(stream.handle, [work = std::move(work)] { work({nullptr, &scratch}); });
}

Point now(void* stream) {
  refuse_capture(stream, "recording an event");
  return {stream, state().queues[stream].given};
}

void wait(void* stream, const Point& point) {
  refuse_capture(stream, "waiting for an event");
  submit(stream, [point] { run_until(point.stream, point.items); });
}

void finish(const Point& point) {
  refuse_capture(point.stream, "waiting for a stream");
  if (state().pace == cuda::Pace::kOthersFirst) {
    for (auto& [stream, queue] : state().queues) {
      if (stream != point.stream) run_until(stream, queue.given);
    }
  }
  run_until(point.stream, point.items);
}

void finish_all() {
  for (auto& [stream, queue] : state().queues) run_until(stream, queue.given);
}

bool capturing(void* stream) { return state().queues[stream].graph != nullptr; }

bool capturing_any() {
  return std::any_of(state().queues.begin(), state().queues.end(),
                     [](const auto& entry) { return entry.second.graph != nullptr; });
}

void begin_capture(void* stream) {
  refuse_capture(stream, "a second capture");
  state().queues[stream].graph = std::make_shared<Graph>();
}

std::shared_ptr<const Graph> end_capture(void* stream) { return std::move(state().queues[stream].graph); }

}  // namespace depthstill::simt

namespace depthstill::cuda {

void set_pace(Pace pace) {
  simt::finish_all();
  simt::state().pace = pace;
}

}  // namespace depthstill::cuda
