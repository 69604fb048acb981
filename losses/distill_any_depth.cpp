#include "losses/distill_any_depth.h"

#include <utility>

#include "engine/ops.h"
#include "engine/profile.h"

namespace depthstill {
namespace {

void add_part(LossResult& result, const char* name, const Tensor& value, float weight) {
  result.parts.emplace_back(name, value.detach());
  const Tensor weighted = weight == 1.0f ? value : scale(value, weight);
  result.total = result.total.defined() ? add(result.total, weighted) : weighted;
}

}  // namespace

LossResult cross_context_loss(const Tensor& student, const Tensor& teacher, const DistillOptions& options) {
  check(options.lambda_sc != 0.0f || options.lambda_grad != 0.0f,
        "loss: expected at least one part with a weight other than 0");
  check(!options.reference || options.anchor == 0.0f, "loss: expected no anchor in reference mode, found ",
        options.anchor);
  // HDN as coded leaves the greatest pixels out of its contexts; a global norm and L_grad count them.
  const ContextRule whole{options.contexts, options.reference, false};
  const bool normalises = options.lambda_sc != 0.0f && options.norm != ContextNorm::kNone;
  const bool open = normalises && options.reference && options.norm != ContextNorm::kGlobal;
  LossResult result;
  Contexts contexts;
  if (normalises || options.lambda_grad != 0.0f || options.anchor != 0.0f) {
    const ProfileRange range("loss", "contexts");
    contexts = context_statistics(student, teacher, {whole.kind, whole.reference, open});
  }
  if (options.lambda_sc != 0.0f) {
    const ProfileRange range("loss", "sc");
    const Tensor value = context_loss(student, teacher, contexts, {options.norm, options.detach, options.trim});
    add_part(result, "sc", value, options.lambda_sc);
  }
  if (options.lambda_grad != 0.0f) {
    const ProfileRange range("loss", "grad");
    if (open) contexts = context_statistics(student, teacher, whole);
    const Tensor value = gradient_matching(student, teacher, contexts, {.detach = options.detach});
    add_part(result, "grad", value, options.lambda_grad);
  }
  if (contexts.leaves.defined()) {
    const ProfileRange range("loss", "scales");
    const ScaleFigures scales = context_scales(student, contexts);
    if (options.anchor != 0.0f) add_part(result, "anchor", scales.anchor, options.anchor);
    result.figures = {{"t_student", scales.t_student},
                      {"s_student", scales.s_student},
                      {"t_teacher", scales.t_teacher},
                      {"s_teacher", scales.s_teacher},
                      {"bounded", scales.bounded}};
  }
  result.depth = student.detach();
  return result;
}

DistillAnyDepth::DistillAnyDepth(DepthModel& model, const DistillOptions& options, std::vector<ParameterGroup> groups)
    : NetworkObjective(model, std::move(groups)), options_(options) {
  check(model.options().head == Head::kRelative, model.name(), ": expected a relative head for the loss ",
        kDistillAnyDepthLoss, ", found ", name_of(model.options().head));
}

LossResult DistillAnyDepth::losses(std::span<const BatchTensors> views) {
  const BatchTensors& batch = views[0];
  const Prediction output = [&] {
    const ProfileRange range("fwd");
    return model_.forward(batch.image);
  }();
  end_forward();
  const ProfileRange range("loss");
  return cross_context_loss(output.map, batch.teacher, options_);
}

}  // namespace depthstill
