#include "engine/step_arena.h"

#include <iterator>
#include <utility>

#include "kernels/core/error.h"

namespace depthstill {

StepArena::StepArena(Device device) : device_(device) { set_allocation_hook(device_, this); }

StepArena::~StepArena() {
  set_allocation_hook(device_, nullptr);
  depthstill::deallocate(device_, arena_);
}

void StepArena::run(const std::function<void()>& step) {
  check(state_ == State::kIdle, "step arena: a step runs already");
  const bool recording = !plan_;
  thread_ = std::this_thread::get_id();
  next_ = 0;
  state_ = recording ? State::kRecording : State::kReplaying;
  try {
    step();
  } catch (...) {
    state_ = State::kIdle;
    if (recording) {
      allocations_.clear();
      recorded_live_.clear();
    }
    throw;
  }
  state_ = State::kIdle;
  recording ? finish_recording() : finish_replay();
}

void StepArena::finish_recording() {
  recorded_live_.clear();
  std::vector<BlockLife> lives;
  for (const Allocation& a : allocations_) {
    if (a.end != 0) lives.push_back({a.bytes, a.begin, a.end});
  }
  plan_ = plan_memory(lives);
  size_t planned = 0;
  for (Allocation& a : allocations_) {
    if (a.end != 0) a.offset = plan_->offsets[planned++];
  }
  release_unused_memory(device_);  // what the step used so far would be kept beside the arena
  arena_ = static_cast<char*>(depthstill::allocate(device_, plan_->bytes));
}

void StepArena::finish_replay() {
  check(next_ == allocations_.size(), "step arena: expected ", allocations_.size(), " allocations in a step, found ",
        next_);
  check(live_.empty(),
        "step arena: expected every tensor of the step to be gone at its end as in the first step, found ",
        live_.size(), " in use");
}

void* StepArena::allocate(size_t bytes) {
  if (state_ != State::kReplaying || std::this_thread::get_id() != thread_) return nullptr;
  check(next_ < allocations_.size(), "step arena: expected ", allocations_.size(),
        " allocations in a step, found one more, of ", bytes, " bytes");
  const Allocation& a = allocations_[next_];
  check(a.bytes == bytes, "step arena: allocation ", next_, " of the step: expected ", a.bytes, " bytes, found ", bytes,
        "; the shapes of a step must stay the same");
  ++next_;
  if (a.end == 0) return nullptr;
  const auto above = live_.lower_bound(a.offset);
  const bool free = (above == live_.end() || a.offset + bytes <= above->first) &&
                    (above == live_.begin() || std::prev(above)->second <= a.offset);
  check(free, "step arena: allocation ", next_ - 1,
        " of the step: expected its place to be free as in the first step, ", "found a tensor in use");
  live_.emplace_hint(above, a.offset, a.offset + bytes);
  return arena_ + a.offset;
}

void StepArena::allocated(void* pointer, size_t bytes) {
  if (state_ != State::kRecording || std::this_thread::get_id() != thread_) return;
  recorded_live_[pointer] = allocations_.size();
  allocations_.push_back({bytes, time_++, 0, 0});
}

bool StepArena::deallocate(void* pointer) {
  if (state_ == State::kRecording) {
    if (const auto found = recorded_live_.find(pointer); found != recorded_live_.end()) {
      allocations_[found->second].end = time_++;
      recorded_live_.erase(found);
    }
    return false;
  }
  const auto* p = static_cast<const char*>(pointer);
  if (arena_ == nullptr || p < arena_ || p >= arena_ + plan_->bytes) return false;
  live_.erase(static_cast<size_t>(p - arena_));
  return true;
}

}  // namespace depthstill
