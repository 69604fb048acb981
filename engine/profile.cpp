#include "engine/profile.h"

#include <chrono>
#include <mutex>
#include <set>
#include <utility>

#include "kernels/core/tracing.h"

namespace depthstill {
namespace {

using Clock = std::chrono::steady_clock;

// Nodes of a tape and samples outlive profilers, so names are kept for good; a network has a few hundred.
const std::string* kept_name(std::string name) {
  static std::mutex mutex;
  static auto& names = *new std::set<std::string>;
  const std::lock_guard lock(mutex);
  return &*names.insert(std::move(name)).first;
}

struct Timestamp {
  Timestamp() : handle(cuda::create_timestamp()) {}
  ~Timestamp() { cuda::destroy_timestamp(handle); }
  Timestamp(const Timestamp&) = delete;
  Timestamp& operator=(const Timestamp&) = delete;
  void* handle;
};

}  // namespace

namespace detail {
constinit thread_local Profiler* profiler = nullptr;
}

struct Profiler::State {
  Device device;
  std::vector<const std::string*> ranges;  // ranges that are open
  std::vector<OpSample> samples;
  int open_ops = 0;
  Clock::time_point start;                             // CPU
  std::vector<std::unique_ptr<Timestamp>> timestamps;  // CUDA: two per sample, used again after take()

  void open(std::string name) {
    ranges.push_back(kept_name(std::move(name)));
    cuda::range_push(ranges.back()->c_str());
  }
  void mark(size_t index) const { cuda::take_timestamp(timestamps[index]->handle, stream_of(device)); }
};

Profiler::Profiler(Device device) : state_(new State{device, {}, {}, 0, {}, {}}) {
  check(detail::profiler == nullptr, "profiler: this thread has one already");
  detail::profiler = this;
}

Profiler::~Profiler() { detail::profiler = nullptr; }

std::vector<OpSample> Profiler::take() {
  std::vector<OpSample> samples = std::exchange(state_->samples, {});
  if (state_->device == Device::kCuda) {
    synchronize(state_->device);
    for (size_t i = 0; i < samples.size(); ++i) {
      samples[i].ms = cuda::elapsed_ms(state_->timestamps[2 * i]->handle, state_->timestamps[2 * i + 1]->handle);
    }
  }
  return samples;
}

void ProfileRange::open(std::string_view phase, std::string_view path, std::string_view step) {
  constexpr std::string_view kLabelPhases[] = {"teacher", "features"};
  const std::string* outer = open_range();
  for (const std::string_view labels : kLabelPhases) {
    if (phase == "fwd" && outer != nullptr && outer->starts_with(labels)) phase = labels;
  }
  std::string name(phase);
  if (!path.empty()) name.append("/").append(path);
  if (!step.empty()) name.append(path.empty() ? "/" : ".").append(step);
  detail::profiler->state_->open(std::move(name));
}

void ProfileRange::open_backward(const std::string* forward) {
  constexpr std::string_view kForward = "fwd/";
  std::string_view name;
  if (forward != nullptr) name = *forward;
  if (name.starts_with(kForward)) name.remove_prefix(kForward.size());
  open("bwd", name, {});
}

void ProfileRange::close() noexcept {
  if (detail::profiler == nullptr) return;  // it went before the range
  detail::profiler->state_->ranges.pop_back();
  cuda::range_pop();
}

const std::string* open_range() {
  if (detail::profiler == nullptr) return nullptr;
  const auto& ranges = detail::profiler->state_->ranges;
  return ranges.empty() ? nullptr : ranges.back();
}

void OpRange::open(const char* op, const Work& work) {
  Profiler::State& state = *detail::profiler->state_;
  if (state.open_ops++ > 0) return;
  const std::string* range = open_range();
  state.samples.push_back({range == nullptr ? std::string_view() : *range, *kept_name(op), work, 0.0});
  cuda::range_push(op);
  if (state.device == Device::kCpu) {
    state.start = Clock::now();
    return;
  }
  while (state.timestamps.size() < 2 * state.samples.size()) state.timestamps.push_back(std::make_unique<Timestamp>());
  state.mark(2 * state.samples.size() - 2);
}

void OpRange::close() noexcept {
  if (detail::profiler == nullptr) return;
  Profiler::State& state = *detail::profiler->state_;
  if (--state.open_ops > 0) return;
  if (state.device == Device::kCpu) {
    state.samples.back().ms = std::chrono::duration<double, std::milli>(Clock::now() - state.start).count();
  } else {
    state.mark(2 * state.samples.size() - 1);
  }
  cuda::range_pop();
}

}  // namespace depthstill
