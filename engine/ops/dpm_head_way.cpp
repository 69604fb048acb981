#include "engine/ops/dpm_head_way.h"

#include <cstdio>
#include <limits>
#include <vector>

#include "engine/allocator.h"
#include "engine/ops.h"
#include "engine/random_data.h"
#include "engine/step_arena.h"
#include "kernels/core/runtime.h"
#include "kernels/plans/choice.h"
#include "kernels/plans/timer.h"

namespace depthstill {
namespace {

constexpr double kEqual = 1.03;  // times in this ratio are equal
constexpr const char* kFused = "fused ";
constexpr const char* kStored = "stored ";

struct Timed {
  DpmHeadWay way = DpmHeadWay::kStored;
  std::string times;  // times of both ways, this one's first
};

// Everything that the times depend on, besides the device and its libraries.
std::string key_of(const DpmHeadProblem& problem) {
  const DpmOptions& dpm = problem.options;
  const DpmBins& bins = problem.bins;
  const std::string kl =
      concat_text(" kl ", static_cast<int>(dpm.kl), " target ", static_cast<int>(dpm.target), " sigma ", dpm.sigma,
                  " floor ", dpm.floor, " eps ", dpm.eps, dpm.mask ? " mask" : "", " first row ", dpm.first_row);
  return concat_text("dpm_head ", problem.dtype, " ", problem.x, " activation ", static_cast<int>(problem.head.below),
                     " bins ", bins.bins, " ", bins.d_min, " ", bins.d_max, problem.kl ? kl : "",
                     problem.depth ? " depth" : "");
}

std::string in_ms(double ms) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.3f ms", ms);
  return text;
}

// The head's parameters without gradients, before and after, also where a step fails.
class WithoutGradients {
 public:
  explicit WithoutGradients(DpmHead head) : head_(std::move(head)) { clear(); }
  ~WithoutGradients() { clear(); }
  WithoutGradients(const WithoutGradients&) = delete;
  WithoutGradients& operator=(const WithoutGradients&) = delete;

 private:
  void clear() {
    head_.weight.clear_grad();
    head_.bias.clear_grad();
  }
  DpmHead head_;
};

}  // namespace

DpmHeadChoice choose_dpm_head_way(const DpmHeadProblem& problem, std::optional<DpmHeadWay> wanted,
                                  const DpmHeadClock& clock) {
  if (!dpm_head_supported(problem.device(), problem.dtype, problem.x[3], problem.bins)) {
    if (wanted.value_or(DpmHeadWay::kStored) == DpmHeadWay::kStored) return {};
    return {DpmHeadWay::kStored, concat_text("note: no fused head: no kernels for ", problem.bins.bins, " bins in ",
                                             problem.dtype, " on ", problem.device())};
  }
  if (wanted) return {*wanted, ""};
  if (problem.device() == Device::kCpu || (clock.cache == nullptr && !clock.milliseconds)) return {};

  double fused_ms = std::numeric_limits<double>::infinity(), stored_ms = fused_ms;
  bool measured = false;
  plans::Chooser<Timed> by;
  by.cache = clock.cache;
  if (clock.milliseconds) {
    by.milliseconds = [&](const Timed& timed, double best_ms) {
      measured = true;
      const double ms = clock.milliseconds(timed.way, best_ms);
      const bool fused = timed.way == DpmHeadWay::kFused;
      (fused ? fused_ms : stored_ms) = ms;
      return fused ? ms / kEqual : ms;
    };
  }
  by.record = [&](const Timed& timed) {
    const std::string fused = kFused + in_ms(fused_ms), stored = kStored + in_ms(stored_ms);
    return timed.way == DpmHeadWay::kFused ? fused + ", " + stored : stored + ", " + fused;
  };
  by.rebuild = [](const std::string& record) -> std::optional<Timed> {
    if (record.starts_with(kFused)) return Timed{DpmHeadWay::kFused, record};
    if (record.starts_with(kStored)) return Timed{DpmHeadWay::kStored, record};
    return std::nullopt;
  };
  const auto candidates = [](plans::Wanted) {
    return std::vector<Timed>{{DpmHeadWay::kStored, ""}, {DpmHeadWay::kFused, ""}};
  };
  const Timed best = plans::choose<Timed>(key_of(problem), by, candidates);
  const std::string times = measured ? by.record(best) : best.times;
  if (times.empty()) return {best.way, ""};
  return {best.way,
          concat_text("head: its logits are ", best.way == DpmHeadWay::kFused ? "made again in the gradient" : "stored",
                      " (", times, " for head and loss", measured ? "" : ", measured before", ")")};
}

DpmHeadChoice choose_dpm_head_way(const DpmHeadProblem& problem, std::optional<DpmHeadWay> wanted) {
  std::optional<DpmHeadTrial> trial;
  DpmHeadClock clock;
  const Device device = problem.device();
  if (device == Device::kCuda && !cuda::emulated() && plans::may_measure(stream_of(device))) {
    clock.cache = plans::device_cache(stream_of(device));
    clock.milliseconds = [&](DpmHeadWay way, double best_ms) {
      if (!trial) trial.emplace(problem);
      return trial->milliseconds(way, best_ms);
    };
  }
  DpmHeadChoice choice = choose_dpm_head_way(problem, wanted, clock);
  if (trial) {
    trial.reset();
    release_unused_memory(device);
  }
  return choice;
}

DpmHeadTrial::DpmHeadTrial(const DpmHeadProblem& problem) : problem_(problem) {
  const Shape& shape = problem.x;
  const Device device = problem.device();
  const NoGrad no_grad;
  x_ = empty(shape, problem.dtype, device);
  Tensor image = random_values({1, shape[1], shape[2], shape[3]}, problem.dtype, device);
  if (problem.head.below != Activation::kNone) image = activation(image, problem.head.below);
  const size_t bytes = image.bytes();
  for (int64_t n = 0; n < shape[0]; ++n) {
    copy_bytes(static_cast<char*>(x_.raw()) + static_cast<size_t>(n) * bytes, device, image.raw(), device, bytes);
  }
  teacher_ = random_teacher({shape[0], shape[1], shape[2]}, problem.bins.d_max, device);
}

Tensor DpmHeadTrial::loss(DpmHeadWay way) const {
  // The layer below leaves x like this: a gradient sent to it goes on through its activation.
  Tensor leaf = empty({1}, DType::kFloat, problem_.device());
  leaf.set_requires_grad();
  const Tensor x = record_activated("trial", {leaf}, x_, problem_.head.below, true,
                                    [](const Gradients&) -> Gradients { return {Tensor()}; });
  const DpmMap map(x, problem_.head, problem_.bins);
  // The other parts of the loss are the same either way; any map serves as what they send back to the depth.
  const Tensor ddepth = problem_.depth ? teacher_ : Tensor();
  if (!problem_.kl) {
    return record("trial", {dpm_depth(map, way)}, leaf.detach(),
                  [ddepth](const Tensor&) -> Gradients { return {ddepth}; });
  }
  const DpmOutput result = dpm_loss(map, teacher_, problem_.options, way);
  return record("trial", {result.kl, result.depth}, result.kl.detach(), [ddepth](const Tensor& dkl) -> Gradients {
    return {dkl, ddepth};
  });
}

void DpmHeadTrial::run(DpmHeadWay way) const {
  const WithoutGradients guard(problem_.head);
  backward(loss(way));  // the logits are nobody else's by now, as in training
}

double DpmHeadTrial::milliseconds(DpmHeadWay way, double best_ms) const {
  const Device device = problem_.device();
  run(way);  // chooses the convolution's ways and makes tables
  StepArena arena(device);
  const auto step = [&] { arena.run([&] { run(way); }); };
  step();  // plans the arena: a capture may not ask for memory
  return plans::median_ms(stream_of(device), best_ms, step);
}

}  // namespace depthstill
