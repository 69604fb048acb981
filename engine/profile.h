// Named ranges around what a step does, and what every op took. On a thread without a Profiler all of this is a branch.
//   ranges  fwd/<path of a module>, bwd/<the same>, loss/<name>, bwd/loss/<name>, update/<name>; also NVTX ranges.
//           Inside of teacher and features, which are of networks that make labels, fwd/<path> is teacher/<path>.
//   ops     one sample per call and direction, inside the range that is open
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tensor.h"

namespace depthstill {

// Work is the least that a call has to do, as its op states it.
struct Work {
  double flops = 0;  // two per multiply-add of a convolution or product; 0 for the others, which memory bounds
  double bytes = 0;  // bytes read and written, once per pass that the op makes over a tensor
};

template <class... Tensors>
double bytes_of(const Tensors&... tensors) {
  return (0.0 + ... + (tensors.defined() ? static_cast<double>(tensors.bytes()) : 0.0));
}

struct OpSample {
  std::string_view range, op;  // live as long as the process
  Work work;
  double ms = 0;
};

// While a Profiler is alive, its thread's ops are timed: by the clock on the CPU, by events of the stream on CUDA,
// where an op's time is that of its kernels and of the gaps between them. A thread has one at a time.
class Profiler {
 public:
  explicit Profiler(Device device);
  ~Profiler();
  Profiler(const Profiler&) = delete;
  Profiler& operator=(const Profiler&) = delete;

  // Samples since the last call, in order. Waits for the device.
  std::vector<OpSample> take();

 private:
  friend class ProfileRange;
  friend class OpRange;
  friend const std::string* open_range();
  struct State;
  std::unique_ptr<State> state_;
};

namespace detail {
extern constinit thread_local Profiler* profiler;
}

// The range phase/path.step is open for as long as this lives. It replaces the range that was open.
class ProfileRange {
 public:
  explicit ProfileRange(std::string_view phase, std::string_view path = {}, std::string_view step = {})
      : open_(detail::profiler != nullptr) {
    if (open_) open(phase, path, step);
  }
  // The backward counterpart of a range that was open when a node was recorded; `forward` may be null.
  explicit ProfileRange(const std::string* forward) : open_(detail::profiler != nullptr) {
    if (open_) open_backward(forward);
  }
  ~ProfileRange() {
    if (open_) close();
  }
  ProfileRange(const ProfileRange&) = delete;
  ProfileRange& operator=(const ProfileRange&) = delete;

 private:
  void open(std::string_view phase, std::string_view path, std::string_view step);
  void open_backward(const std::string* forward);
  void close() noexcept;

  bool open_;
};

// The range that is open, for as long as the process lives; null without one or without a profiler.
const std::string* open_range();

// One call of an op; `work()` gives its Work. An op inside another one belongs to it.
class OpRange {
 public:
  template <class F>
  OpRange(const char* op, F work) : open_(detail::profiler != nullptr) {
    if (open_) open(op, work());
  }
  ~OpRange() {
    if (open_) close();
  }
  OpRange(const OpRange&) = delete;
  OpRange& operator=(const OpRange&) = delete;

 private:
  void open(const char* op, const Work& work);
  void close() noexcept;

  bool open_;
};

}  // namespace depthstill
