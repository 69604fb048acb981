// The memory of a training step: one arena in which every block has its place. The first run() records what the step
// allocates and frees while the device's arena serves it; then offsets are planned (memory_plan.h), and every later
// run() hands out the planned places: nothing is searched, split or asked of the system, and the i-th tensor of a step
// has the same address in all of them, which a captured graph relies on.
//
// What is still alive when the first run() ends stays with the device's arena in later ones too. Scratch memory is not
// the step's. Steps that allocate otherwise than the first are refused with an Error. The arena must outlive the
// tensors that a step which failed has left behind, such as gradients.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "engine/allocator.h"
#include "engine/memory_plan.h"

namespace depthstill {

class StepArena final : private AllocationHook {
 public:
  explicit StepArena(Device device);  // one per device at a time
  ~StepArena() override;
  StepArena(const StepArena&) = delete;
  StepArena& operator=(const StepArena&) = delete;

  // Calls step(). If it throws, what it recorded is forgotten.
  void run(const std::function<void()>& step);

  // The plan covers the blocks that end within the step; it is nullptr before the first run() has returned.
  const MemoryPlan* plan() const { return plan_ ? &*plan_ : nullptr; }

 private:
  enum class State : uint8_t { kIdle, kRecording, kReplaying };

  void* allocate(size_t bytes) override;
  void allocated(void* pointer, size_t bytes) override;
  bool deallocate(void* pointer) override;

  void finish_recording();
  void finish_replay();

  struct Allocation {
    size_t bytes = 0;
    int64_t begin = 0, end = 0;  // end 0: outlives the step
    size_t offset = 0;           // place of one that does not
  };

  Device device_;
  State state_ = State::kIdle;
  std::thread::id thread_;
  std::vector<Allocation> allocations_;              // allocations of the step, in order
  std::unordered_map<void*, size_t> recorded_live_;  // pointer -> index, while recording
  int64_t time_ = 0;
  std::optional<MemoryPlan> plan_;
  char* arena_ = nullptr;
  size_t next_ = 0;                // index of the next allocation, while replaying
  std::map<size_t, size_t> live_;  // offset -> end of the planned blocks in use
};

}  // namespace depthstill
