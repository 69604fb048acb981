#include "losses/tie_kd.h"

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

constexpr float kResKdSsimWeight = 1.5f;  // of the published configurations

LossOptions without_parts() {
  LossOptions options;
  options.dpm_weight = options.ssim_weight = 0.0f;
  return options;
}

LossOptions tie_kd(float dpm_weight, float ssim_weight) {
  LossOptions options;
  options.dpm_weight = dpm_weight;
  options.ssim_weight = ssim_weight;
  return options;
}

LossOptions res_kd(float ssim_weight, float si_weight, float mse_weight) {
  LossOptions options = without_parts();
  options.ssim_weight = ssim_weight;
  options.si_weight = si_weight;
  options.mse_weight = mse_weight;
  options.top_rows = 0;
  return options;
}

LossOptions l1() {
  LossOptions options = res_kd(0.0f, 0.0f, 0.0f);
  options.l1_weight = 1.0f;
  return options;
}

LossOptions baseline() {
  LossOptions options = without_parts();
  options.si_weight = 1.0f;
  options.target = DepthTarget::kTruth;
  options.top_rows = 0;
  return options;
}

struct NamedLoss {
  const char* name;
  LossOptions options;
};

std::vector<NamedLoss> named_losses(float alpha, float beta) {
  return {
      {"tie_kd", tie_kd(beta * alpha, beta * (1.0f - alpha))},
      {"dpm", tie_kd(1.0f, 0.0f)},
      {"depth", tie_kd(0.0f, 1.0f)},
      {"res_kd_ssim", res_kd(kResKdSsimWeight, 0.0f, 0.0f)},
      {"res_kd_mse", res_kd(0.0f, 0.0f, 1.0f)},
      {"res_kd_si", res_kd(0.0f, 1.0f, 0.0f)},
      {"res_kd_ssim_si", res_kd(kResKdSsimWeight, 1.0f, 0.0f)},
      {"res_kd_ssim_mse", res_kd(kResKdSsimWeight, 0.0f, 1.0f)},
      {"l1", l1()},
      {"baseline", baseline()},
  };
}

// The target's rows that the output has; `first_row` becomes the first one that counts among them.
Tensor target_rows(const Tensor& output, const Tensor& target, const LossOptions& options, int64_t* first_row) {
  const char* name = options.target == DepthTarget::kTruth ? "ground truth" : "teacher";
  check(target.defined(), "loss: expected a ", name, " depth map, got none");
  check(target.shape().rank() == 3, "loss: expected a ", name, " (N, H, W), got ", target.shape());
  const int64_t rows = output.size(1), height = target.size(1);
  check(options.top_rows >= 0 && options.top_rows < height, "loss: expected top_rows within the ", name, "'s ", height,
        " rows, got ", options.top_rows);
  check(rows == height || rows == height - options.top_rows, "loss: expected an output of ", height, " rows, or of ",
        height - options.top_rows, " without the top ", options.top_rows, ", got ", output.shape());
  *first_row = rows == height ? options.top_rows : 0;
  const ProfileRange range("loss", "target");
  return rows == height ? target : crop_rows(target, height - rows, rows);
}

Tensor depth_of(const Prediction& output, const DpmBins& bins) {
  const ProfileRange range("loss", "depth");
  if (output.before_head()) return dpm_head_depth(output.map, output.weight, output.bias, bins);
  return output.map.shape().rank() == 4 ? dpm_depth(output.map, bins) : cast(output.map, DType::kFloat);
}

DpmOutput dpm_part(const Prediction& output, const Tensor& target, const DpmBins& bins, const DpmOptions& options) {
  return output.before_head() ? dpm_head_loss(output.map, output.weight, output.bias, target, bins, options)
                              : dpm_loss(output.map, target, bins, options);
}

class WeightedSum {
 public:
  // `loss()` gives the part.
  template <class F>
  void add_part(const char* name, float weight, F loss) {
    const ProfileRange range("loss", name);
    const Tensor value = loss();
    parts_.emplace_back(name, value.detach());
    const Tensor weighted = weight == 1.0f ? value : scale(value, weight);
    total_ = total_.defined() ? add(total_, weighted) : weighted;
  }
  LossResult result(const Tensor& depth) { return {total_, std::move(parts_), depth.detach()}; }

 private:
  Tensor total_;
  std::vector<std::pair<std::string, Tensor>> parts_;
};

}  // namespace

LossOptions named_loss(std::string_view name, float alpha, float beta) {
  std::string known;
  for (const NamedLoss& loss : named_losses(alpha, beta)) {
    if (loss.name == name) return loss.options;
    known += std::string(known.empty() ? "" : ", ") + loss.name;
  }
  fail("loss: expected one of ", known, "; got \"", name, "\"");
}

std::vector<std::string> loss_names() {
  std::vector<std::string> names;
  for (const NamedLoss& loss : named_losses(0.0f, 0.0f)) names.emplace_back(loss.name);
  return names;
}

LossResult distillation_loss(const Prediction& output, const Tensor& teacher, const Tensor& truth,
                             const LossOptions& options, const DpmBins& bins) {
  const Shape& shape = output.map.shape();
  const bool logits = shape.rank() == 4;
  check(logits || shape.rank() == 3, "loss: expected logits (N, H, W, bins) or depth (N, H, W), got ", shape);
  check(logits || !options.needs_logits(), "loss: the DPM loss needs a model with a depth probability map, got depth ",
        shape);
  const bool on_truth = options.target == DepthTarget::kTruth;
  int64_t first_row = 0;
  const Tensor target = target_rows(output.map, on_truth ? truth : teacher, options, &first_row);
  const bool mask = options.mask || on_truth;

  WeightedSum sum;
  Tensor depth;
  if (options.needs_logits()) {
    DpmOptions dpm = options.dpm;
    dpm.mask = mask;
    dpm.first_row = first_row;
    sum.add_part("dpm", options.dpm_weight, [&] {
      DpmOutput result = dpm_part(output, target, bins, dpm);
      depth = result.depth;
      return result.kl;
    });
  } else {
    depth = depth_of(output, bins);
  }
  if (options.ssim_weight != 0.0f) {
    sum.add_part("ssim", options.ssim_weight, [&] {
      return ssim_loss(depth, target, {options.ssim_mode, mask, first_row});
    });
  }
  if (options.si_weight != 0.0f) {
    sum.add_part("si", options.si_weight, [&] { return si_loss(depth, target, {true, first_row}); });
  }
  if (options.mse_weight != 0.0f) {
    sum.add_part("mse", options.mse_weight, [&] { return mse_loss(depth, target, {mask, first_row}); });
  }
  if (options.l1_weight != 0.0f) {
    sum.add_part("l1", options.l1_weight, [&] { return l1_loss(depth, target, {mask, first_row}); });
  }
  LossResult result = sum.result(depth);
  check(result.total.defined(), "loss: expected at least one part with a weight other than 0");
  return result;
}

}  // namespace depthstill
