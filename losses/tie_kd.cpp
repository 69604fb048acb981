#include "losses/tie_kd.h"

#include <algorithm>
#include <utility>

#include "engine/ops.h"
#include "engine/ops/dpm_head_way.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

constexpr const char* kFusedHead = "fused_head";

constexpr float kResKdSsimWeight = 1.5f;  // weight in the published configurations

struct NamedLoss {
  const char* name;
  std::vector<std::pair<const char*, float>> weights;
  DepthTarget target = DepthTarget::kTeacher;
};

std::vector<NamedLoss> named_losses(float alpha, float beta) {
  return {
      {"tie_kd", {{"dpm", beta * alpha}, {"ssim", beta * (1.0f - alpha)}}},
      {"dpm", {{"dpm", 1.0f}}},
      {"depth", {{"ssim", 1.0f}}},
      {"res_kd_ssim", {{"ssim", kResKdSsimWeight}}},
      {"res_kd_mse", {{"mse", 1.0f}}},
      {"res_kd_si", {{"si", 1.0f}}},
      {"res_kd_ssim_si", {{"ssim", kResKdSsimWeight}, {"si", 1.0f}}},
      {"res_kd_ssim_mse", {{"ssim", kResKdSsimWeight}, {"mse", 1.0f}}},
      {"l1", {{"l1", 1.0f}}},
      {"baseline", {{"si", 1.0f}}, DepthTarget::kTruth},
  };
}

bool masks(const LossOptions& options) { return options.mask || options.target == DepthTarget::kTruth; }

// The target's rows that the output has; `first_row` becomes the first one that counts among them.
Tensor target_rows(const Shape& output, const Tensor& target, const LossOptions& options, const Tensor& tally,
                   int64_t* first_row) {
  const char* name = options.target == DepthTarget::kTruth ? "ground truth" : "teacher";
  check(target.defined(), "loss: expected a ", name, " depth map, got none");
  check(target.shape().rank() == 3, "loss: expected a ", name, " (N, H, W), got ", target.shape());
  const int64_t rows = output[1], height = target.size(1);
  check(options.top_rows >= 0 && options.top_rows < height, "loss: expected top_rows within the ", name, "'s ", height,
        " rows, got ", options.top_rows);
  check(rows == height || rows == height - options.top_rows, "loss: expected an output of ", height, " rows, or of ",
        height - options.top_rows, " without the top ", options.top_rows, ", got ", output);
  *first_row = rows == height ? options.top_rows : 0;
  const ProfileRange range("loss", "target");
  const TargetMode mode = masks(options) ? TargetMode::kMask : TargetMode::kClamp;
  return depth_target(target, options.range, {mode, rows, *first_row}, tally);
}

}  // namespace

LossOptions named_loss(std::string_view name, float alpha, float beta) {
  const std::vector<NamedLoss> losses = named_losses(alpha, beta);
  const auto found = std::ranges::find_if(losses, [&](const NamedLoss& loss) { return loss.name == name; });
  check(found != losses.end(), "loss: expected one of ",
        list_text(losses, [](const NamedLoss& loss) { return loss.name; }), "; got \"", name, "\"");
  LossOptions options;
  for (const auto& [term, weight] : found->weights) options.weights[term] = weight;
  options.target = found->target;
  return options;
}

std::vector<std::string> loss_names() {
  std::vector<std::string> names;
  for (const NamedLoss& loss : named_losses(0.0f, 0.0f)) names.emplace_back(loss.name);
  return names;
}

LossResult tie_kd_loss(const Prediction& output, const Tensor& teacher, const Tensor& truth, const LossOptions& options,
                       DpmHeadWay way, const Tensor& tally) {
  int64_t first_row = 0;
  const Tensor& wanted = options.target == DepthTarget::kTruth ? truth : teacher;
  const Tensor target = target_rows(output.shape(), wanted, options, tally, &first_row);
  TermInput input(output, target, masks(options), first_row, options, way);
  LossResult result;
  for (const Term& term : loss_terms()) {
    const float weight = options.weights[term.name];
    if (weight == 0.0f) continue;
    const ProfileRange range("loss", term.name);
    const Tensor value = term.loss(input);
    result.parts.emplace_back(term.name, value.detach());
    const Tensor weighted = weight == 1.0f ? value : scale(value, weight);
    result.total = result.total.defined() ? add(result.total, weighted) : weighted;
  }
  check(result.total.defined(), "loss: expected at least one part with a weight other than 0");
  result.depth = input.depth().detach();
  return result;
}

TieKd::TieKd(DepthModel& model, const TieKdOptions& options)
    : NetworkObjective(model, options.groups), options_(options) {
  options_.loss.range = {model.options().d_min, model.options().d_max};
}

LossResult TieKd::losses(std::span<const BatchTensors> views) {
  const BatchTensors& batch = views[0];
  const Prediction output = [&] {
    const ProfileRange range("fwd");
    return model_.forward(batch.image, first_row());
  }();
  end_forward();
  const ProfileRange range("loss");
  return tie_kd_loss(output, batch.teacher, batch.truth, options_.loss, way_.value_or(DpmHeadWay::kStored), tally_);
}

std::optional<TargetTally> TieKd::targets() const {
  if (!tally_.defined()) return std::nullopt;
  return read_tally(tally_);
}

std::string TieKd::prepare(std::span<const BatchTensors> views) {
  tally_ = zeros({kTallyElements}, DType::kInt64, views[0].image.device());
  std::optional<DpmHeadWay> wanted = way_;
  if (options_.fused_head) wanted = *options_.fused_head ? DpmHeadWay::kFused : DpmHeadWay::kStored;
  if (model_.options().head != Head::kDpm) {
    way_ = DpmHeadWay::kStored;
    return wanted == DpmHeadWay::kFused ? "note: no fused head: " + model_.name() + " has no DPM head" : "";
  }
  const Tensor& image = views[0].image;
  const LossOptions& loss = options_.loss;
  DpmHeadProblem problem;
  problem.head = model_.dpm_head();
  problem.bins = model_.bins();
  problem.x = {image.size(0), image.size(1) - first_row(), image.size(2), problem.head.weight.size(3)};
  problem.dtype = image.dtype();
  problem.kl = loss.weights.needs_bins();
  problem.options = loss.dpm;
  problem.options.mask = masks(loss);
  problem.options.first_row = first_row() == 0 ? loss.top_rows : 0;
  problem.depth = loss.weights.needs_depth();
  const DpmHeadChoice choice = choose_dpm_head_way(problem, wanted);
  way_ = choice.way;
  return choice.note;
}

Metadata TieKd::choices() const {
  if (!way_) return {};
  return {{kFusedHead, way_ == DpmHeadWay::kFused ? "1" : "0"}};
}

void TieKd::restore(const Metadata& saved) {
  const auto found = saved.find(kFusedHead);
  if (found != saved.end()) way_ = found->second == "1" ? DpmHeadWay::kFused : DpmHeadWay::kStored;
}

}  // namespace depthstill
