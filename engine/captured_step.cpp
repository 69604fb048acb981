#include "engine/captured_step.h"

#include <utility>

#include "engine/allocator.h"
#include "kernels/core/error.h"
#include "kernels/core/runtime.h"

namespace depthstill {

CapturedStep::CapturedStep(Device device, bool graph, std::vector<Tensor> counters, Log log)
    : device_(device), want_graph_(graph), counters_(std::move(counters)), log_(std::move(log)) {
  if (device_ == Device::kCuda) arena_ = std::make_unique<StepArena>(device_);
  for (const Tensor& counter : counters_) {
    check(counter.dtype() == DType::kInt64 && counter.device() == Device::kCpu,
          "captured step: expected int64 counters on the CPU, got ", counter.dtype(), " on ", counter.device());
  }
}

CapturedStep::~CapturedStep() {
  if (graph_ == nullptr) return;
  try {
    synchronize(device_);
  } catch (const Error&) {  // the device has failed, and somebody has been told
  }
  cuda::destroy_graph(graph_);
}

void CapturedStep::run(const std::function<void()>& step) {
  if (arena_ && runs_ == 1) give_back_scratch(device_);  // ways have been chosen
  if (!arena_ || runs_ == 0) {
    step();
  } else if (graph_ == nullptr) {
    const bool planned = arena_->plan() != nullptr;
    if (planned && want_graph_ && cuda::can_capture() && runs_ >= 3) {
      capture(step);
    } else {
      arena_->run(step);
    }
  }
  if (graph_ != nullptr) {
    cuda::launch_graph(graph_, stream_of(device_));
    std::vector<int64_t> now = counts();
    for (size_t i = 0; i < now.size(); ++i) now[i] += advance_[i];
    set_counts(now);
  }
  ++runs_;
}

// Leaves graph_ null after a failure, having run the step without one.
void CapturedStep::capture(const std::function<void()>& step) {
  const Stream stream = stream_of(device_);
  const std::vector<int64_t> before = counts();
  std::string reason;
  try {
    cuda::begin_capture(stream);
    arena_->run(step);
    graph_ = cuda::end_capture(stream);
  } catch (const Error& error) {
    reason = error.what();
    cuda::abandon_capture(stream);
  } catch (...) {  // the stream must not stay in capture
    cuda::abandon_capture(stream);
    set_counts(before);
    throw;
  }
  advance_ = counts();
  for (size_t i = 0; i < before.size(); ++i) advance_[i] -= before[i];
  set_counts(before);  // what was captured has not run yet
  if (graph_ != nullptr) {
    keep_scratch(device_);
    return;
  }
  want_graph_ = false;
  log_("steps run without a CUDA graph, for it could not be captured: " + reason);
  arena_->run(step);
}

std::vector<int64_t> CapturedStep::counts() const {
  std::vector<int64_t> values;
  for (const Tensor& counter : counters_) {
    const auto* data = counter.data<int64_t>();
    values.insert(values.end(), data, data + counter.numel());
  }
  return values;
}

void CapturedStep::set_counts(const std::vector<int64_t>& counts) {
  size_t i = 0;
  for (const Tensor& counter : counters_) {
    for (int64_t k = 0; k < counter.numel(); ++k) counter.data<int64_t>()[k] = counts[i++];
  }
}

}  // namespace depthstill
