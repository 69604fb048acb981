#include "losses/terms.h"

#include <algorithm>
#include <utility>

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

DepthLossOptions depth_options(const TermInput& input) { return {input.mask(), input.first_row()}; }

Tensor dpm(TermInput& input) { return input.kl(); }

Tensor ssim(TermInput& input) {
  return ssim_loss(input.depth(), input.target(), {input.options().ssim_mode, input.mask(), input.first_row()});
}

// Logarithms: pixels without a target are left out in any case.
Tensor si(TermInput& input) { return si_loss(input.depth(), input.target(), {true, input.first_row()}); }

Tensor mse(TermInput& input) { return mse_loss(input.depth(), input.target(), depth_options(input)); }

Tensor l1(TermInput& input) { return l1_loss(input.depth(), input.target(), depth_options(input)); }

// Huber (1964), as torch.nn.functional.huber_loss: e^2 / 2 where |e| <= delta, else delta (|e| - delta / 2). With
// q = min(|e|, delta) both are q^2 / 2 + delta (|e| - q).
Tensor huber(TermInput& input) {
  const float delta = input.options().huber_delta;
  const Tensor error = abs(sub(input.depth(), input.target())), near = clamp_max(error, delta);
  const Tensor losses = add(scale(square(near), 0.5f), scale(sub(error, near), delta));
  return mean(losses, input.counted());
}

constexpr Term kTerms[] = {
    {"dpm", "of the KL between depth probability maps", true, false, dpm},
    {"ssim", "of 1 - SSIM", false, true, ssim},
    {"si", "of the scale-invariant log error", false, true, si},
    {"mse", "of the mean squared error", false, true, mse},
    {"l1", "of the mean absolute error", false, true, l1},
    {"huber", "of the Huber loss", false, true, huber},
};

}  // namespace

std::span<const Term> loss_terms() { return kTerms; }

TermInput::TermInput(const Prediction& prediction, Tensor target, bool mask, int64_t first_row,
                     const TermOptions& options, DpmHeadWay way)
    : prediction_(prediction),
      target_(std::move(target)),
      mask_(mask),
      first_row_(first_row),
      options_(options),
      way_(way) {}

const Tensor& TermInput::depth() {
  if (!depth_.defined()) {
    const ProfileRange range("loss", "depth");
    depth_ = depth_of(prediction_, way_);
    if (depth_.dtype() != DType::kFloat) depth_ = cast(depth_, DType::kFloat);
  }
  return depth_;
}

Tensor TermInput::counted() const { return depth_mask(target_, first_row_, mask_); }

Tensor TermInput::kl() {
  check(prediction_.dpm.has_value(), "loss: the DPM loss needs a model with a depth probability map, got depth ",
        prediction_.shape());
  DpmOptions dpm = options_.dpm;
  dpm.mask = mask_;
  dpm.first_row = first_row_;
  DpmOutput result = dpm_loss(*prediction_.dpm, target_, dpm, way_);
  depth_ = std::move(result.depth);
  return result.kl;
}

size_t TermWeights::index_of(std::string_view term) {
  static_assert(std::size(kTerms) <= std::tuple_size_v<decltype(weights_)>);
  for (size_t i = 0; i < std::size(kTerms); ++i) {
    if (term == kTerms[i].name) return i;
  }
  fail("loss: expected one of the terms ", list_text(kTerms, [](const Term& row) { return row.name; }), "; got \"",
       term, '"');
}

bool TermWeights::needs_bins() const {
  return std::ranges::any_of(kTerms, [&](const Term& term) { return term.needs_bins && (*this)[term.name] != 0.0f; });
}

bool TermWeights::needs_depth() const {
  return std::ranges::any_of(kTerms, [&](const Term& term) { return term.needs_depth && (*this)[term.name] != 0.0f; });
}

}  // namespace depthstill
