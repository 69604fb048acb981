#include "engine/ops/dpm_head_way.h"

#include <cstdio>
#include <limits>
#include <vector>

#include "engine/allocator.h"
#include "engine/random_data.h"
#include "engine/step_arena.h"
#include "kernels/dpm_head.h"
#include "kernels/plans/choice.h"
#include "kernels/plans/timer.h"
#include "kernels/runtime.h"

namespace depthstill {
namespace {

constexpr double kEqual = 1.03;  // times in this ratio are equal
constexpr const char* kFused = "fused ";
constexpr const char* kStored = "stored ";

struct Way {
  bool fused = false;
  std::string times;  // of both, this one's first
};

bool uses_depth(const LossOptions& loss) {
  return loss.ssim_weight != 0.0f || loss.si_weight != 0.0f || loss.mse_weight != 0.0f || loss.l1_weight != 0.0f;
}

Shape input_shape(const DepthModel& student, const HeadProblem& problem) {
  return {problem.batch, problem.height - problem.first_row, problem.width, student.head_input().channels};
}

// Of the rows that are computed, as losses/distillation makes them.
DpmOptions dpm_options(const HeadProblem& problem) {
  DpmOptions options = problem.loss.dpm;
  options.mask = problem.loss.mask || problem.loss.target == DepthTarget::kTruth;
  options.first_row = problem.first_row == 0 ? problem.loss.top_rows : 0;
  return options;
}

// Everything that the times depend on, besides the device and its libraries.
std::string key_of(const DepthModel& student, const HeadProblem& problem) {
  const LossOptions& loss = problem.loss;
  const DpmOptions dpm = dpm_options(problem);
  const DpmBins bins = student.bins();
  const std::string kl =
      concat_text(" kl ", static_cast<int>(dpm.kl), " target ", static_cast<int>(dpm.target), " sigma ", dpm.sigma,
                  " floor ", dpm.floor, " eps ", dpm.eps, dpm.mask ? " mask" : "", " first row ", dpm.first_row);
  return concat_text("dpm_head ", problem.dtype, " ", input_shape(student, problem), " activation ",
                     static_cast<int>(student.head_input().activation), " bins ", bins.bins, " ", bins.d_min, " ",
                     bins.d_max, loss.needs_logits() ? kl : "", uses_depth(loss) ? " depth" : "");
}

std::string in_ms(double ms) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.3f ms", ms);
  return text;
}

// None before, and none after, also where a step fails.
class WithoutGradients {
 public:
  explicit WithoutGradients(DepthModel& student) : student_(student) { student.clear_grads(); }
  ~WithoutGradients() { student_.clear_grads(); }
  WithoutGradients(const WithoutGradients&) = delete;
  WithoutGradients& operator=(const WithoutGradients&) = delete;

 private:
  DepthModel& student_;
};

}  // namespace

bool can_fuse_head(const DepthModel& student, Device device, DType dtype) {
  const DpmHeadShape shape{1, 1, 1, student.head_input().channels};
  if (shape.C == 0) return false;
  bool supported = false;
  visit(dtype, [&]<class T>() {
    supported = device == Device::kCpu ? cpu::dpm_head_supported<T>(shape, student.bins())
                                       : cuda::dpm_head_supported<T>(shape, student.bins());
  });
  return supported;
}

HeadChoice choose_head(const DepthModel& student, const HeadProblem& problem, std::optional<bool> wanted,
                       const HeadClock& clock) {
  if (!can_fuse_head(student, problem.device, problem.dtype)) {
    if (!wanted.value_or(false)) return {};
    const std::string why =
        student.head_input().channels == 0
            ? student.name() + " has no DPM head"
            : concat_text("no kernels for ", student.bins().bins, " bins in ", problem.dtype, " on ", problem.device);
    return {false, "note: no fused head: " + why};
  }
  if (wanted) return {*wanted, ""};
  if (problem.device == Device::kCpu || (clock.cache == nullptr && !clock.milliseconds)) return {};

  double fused_ms = std::numeric_limits<double>::infinity(), stored_ms = fused_ms;
  bool measured = false;
  plans::Chooser<Way> by;
  by.cache = clock.cache;
  if (clock.milliseconds) {
    by.milliseconds = [&](const Way& way, double best_ms) {
      measured = true;
      const double ms = clock.milliseconds(way.fused, best_ms);
      (way.fused ? fused_ms : stored_ms) = ms;
      return way.fused ? ms / kEqual : ms;
    };
  }
  by.record = [&](const Way& way) {
    const std::string fused = kFused + in_ms(fused_ms), stored = kStored + in_ms(stored_ms);
    return way.fused ? fused + ", " + stored : stored + ", " + fused;
  };
  by.rebuild = [](const std::string& record) -> std::optional<Way> {
    if (record.starts_with(kFused)) return Way{true, record};
    if (record.starts_with(kStored)) return Way{false, record};
    return std::nullopt;
  };
  const auto candidates = [](plans::Wanted) { return std::vector<Way>{{false, ""}, {true, ""}}; };
  const Way way = plans::choose<Way>(key_of(student, problem), by, candidates);
  const std::string times = measured ? by.record(way) : way.times;
  if (times.empty()) return {way.fused, ""};
  return {way.fused, concat_text("head: its logits are ", way.fused ? "made again in the gradient" : "stored", " (",
                                 times, " for head and loss", measured ? "" : ", measured before", ")")};
}

HeadChoice choose_head(DepthModel& student, const HeadProblem& problem, std::optional<bool> wanted) {
  std::optional<HeadTrial> trial;
  HeadClock clock;
  if (problem.device == Device::kCuda && !cuda::emulated() && plans::may_measure(stream_of(problem.device))) {
    clock.cache = plans::device_cache(stream_of(problem.device));
    clock.milliseconds = [&](bool fused, double best_ms) {
      if (!trial) trial.emplace(student, problem);
      return trial->milliseconds(fused, best_ms);
    };
  }
  HeadChoice choice = choose_head(student, problem, wanted, clock);
  if (trial) {
    trial.reset();
    release_unused_memory(problem.device);
  }
  return choice;
}

HeadTrial::HeadTrial(DepthModel& student, const HeadProblem& problem) : student_(student), problem_(problem) {
  const Shape shape = input_shape(student, problem);
  const Activation kind = student.head_input().activation;
  const NoGrad no_grad;
  x_ = empty(shape, problem.dtype, problem.device);
  Tensor image = random_values({1, shape[1], shape[2], shape[3]}, problem.dtype, problem.device);
  if (kind != Activation::kNone) image = activation(image, kind);
  const size_t bytes = image.bytes();
  for (int64_t n = 0; n < problem.batch; ++n) {
    copy_bytes(static_cast<char*>(x_.raw()) + static_cast<size_t>(n) * bytes, problem.device, image.raw(),
               problem.device, bytes);
  }
  teacher_ = random_teacher({shape[0], shape[1], shape[2]}, student.bins().d_max, problem.device);
}

Tensor HeadTrial::loss(bool fused) const {
  // As the layer below leaves it: a gradient sent to it goes on through its activation.
  Tensor leaf = empty({1}, DType::kFloat, problem_.device);
  leaf.set_requires_grad();
  const Tensor x = record_activated("trial", {leaf}, x_, student_.head_input().activation, true,
                                    [](const Gradients&) -> Gradients { return {Tensor()}; });
  const Prediction output = student_.apply_head(x, fused);
  // The other parts of the loss are the same either way; any map serves as what they send back to the depth.
  const Tensor ddepth = uses_depth(problem_.loss) ? teacher_ : Tensor();
  if (!problem_.loss.needs_logits()) {
    return record("trial", {student_.depth_of(output)}, leaf.detach(),
                  [ddepth](const Tensor&) -> Gradients { return {ddepth}; });
  }
  const DpmOptions options = dpm_options(problem_);
  const DpmOutput result =
      output.before_head() ? dpm_head_loss(output.map, output.weight, output.bias, teacher_, student_.bins(), options)
                           : dpm_loss(output.map, teacher_, student_.bins(), options);
  return record("trial", {result.kl, result.depth}, result.kl.detach(), [ddepth](const Tensor& dkl) -> Gradients {
    return {dkl, ddepth};
  });
}

void HeadTrial::run(bool fused) const {
  const WithoutGradients guard(student_);
  backward(loss(fused));  // the logits are nobody else's by now, as in training
}

double HeadTrial::milliseconds(bool fused, double best_ms) const {
  run(fused);  // chooses the convolution's ways and makes tables
  StepArena arena(problem_.device);
  const auto step = [&] { arena.run([&] { run(fused); }); };
  step();  // plans the arena: a capture may not ask for memory
  return plans::median_ms(stream_of(problem_.device), best_ms, step);
}

}  // namespace depthstill
