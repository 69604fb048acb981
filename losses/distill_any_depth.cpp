#include "losses/distill_any_depth.h"

#include <algorithm>
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

// HDN as coded leaves the greatest pixels out of its contexts; a global norm counts them.
bool is_open(ContextNorm norm, const DistillOptions& options) {
  return options.reference && norm != ContextNorm::kNone && norm != ContextNorm::kGlobal;
}

Tensor local_global_loss(const Tensor& student, const PatchMaps& patches, const DistillOptions& options) {
  const Tensor x = resize_windows(student, patches.windows, patches.maps.size(2));
  Contexts contexts;
  if (options.patch_norm != ContextNorm::kNone) {
    contexts = context_statistics(x, patches.maps,
                                  {options.contexts, options.reference, is_open(options.patch_norm, options)});
  }
  return context_loss(x, patches.maps, contexts, {options.patch_norm, options.detach, options.trim});
}

}  // namespace

LossResult cross_context_loss(const Tensor& student, const Tensor& teacher, const DistillOptions& options,
                              const PatchMaps& patches) {
  const bool local = patches.maps.defined() && options.lambda_lg != 0.0f;
  check(options.lambda_sc != 0.0f || options.lambda_grad != 0.0f || local,
        "loss: expected at least one part with a weight other than 0");
  check(!options.reference || options.anchor == 0.0f, "loss: expected no anchor in reference mode, found ",
        options.anchor);
  const ContextRule whole{options.contexts, options.reference, false};
  const bool normalises = options.lambda_sc != 0.0f && options.norm != ContextNorm::kNone;
  const bool open = normalises && is_open(options.norm, options);  // which L_grad is not
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
  if (local) {
    const ProfileRange range("loss", "lg");
    add_part(result, "lg", local_global_loss(student, patches, options), options.lambda_lg);
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

DistillAnyDepth::DistillAnyDepth(DepthModel& model, const DistillOptions& options, std::vector<ParameterGroup> groups,
                                 LabelNetworks frozen)
    : NetworkObjective(model, std::move(groups)), options_(options), frozen_(std::move(frozen)) {
  check(model.options().head == Head::kRelative, model.name(), ": expected a relative head for the loss ",
        kDistillAnyDepthLoss, ", found ", name_of(model.options().head));
}

std::string DistillAnyDepth::prepare(std::span<const BatchTensors> views) {
  if (frozen_.encoder) {
    const Tensor& image = views[0].image;
    encoder_bytes_ = bytes_taken(image.device(), [&] { make_features(image); });
  }
  return frozen_.teachers ? frozen_.teachers->prepare(views[0]) : "";
}

LabelMemory DistillAnyDepth::label_memory() const {
  LabelMemory memory = frozen_.teachers ? frozen_.teachers->memory() : LabelMemory{};
  if (!frozen_.encoder) return memory;
  memory.temporaries = std::max(memory.temporaries, encoder_bytes_);
  memory.weights += state_bytes(*frozen_.encoder);
  return memory;
}

void DistillAnyDepth::make_labels(std::span<const BatchTensors> views, int64_t teacher) {
  if (frozen_.teachers) frozen_.teachers->label(views[0], teacher);
  if (frozen_.encoder) make_features(views[0].image);
}

void DistillAnyDepth::make_features(const Tensor& image) {
  const ProfileRange range("features");
  Tensor& kept = features_[image.size(0)];
  const int64_t patch = DinoV2::kPatch, tokens = (image.size(1) / patch) * (image.size(2) / patch);
  if (!kept.defined()) {
    kept = empty({image.size(0), tokens, frozen_.encoder->config().dim}, image.dtype(), image.device());
  }
  run_in_parts(
      image, frozen_.most, [&](const Tensor& part) { return frozen_.encoder->forward(part).back(); }, kept);
}

LossResult DistillAnyDepth::losses(std::span<const BatchTensors> views) {
  const BatchTensors& batch = views[0];
  const Prediction output = [&] {
    const ProfileRange range("fwd");
    return frozen_.encoder ? model_.forward_with_features(batch.image) : model_.forward(batch.image);
  }();
  end_forward();
  const ProfileRange range("loss");
  LossResult result = cross_context_loss(output.map, batch.teacher, options_, {batch.patches, batch.windows});
  if (frozen_.encoder) {
    const ProfileRange part("loss", "feat");
    const Tensor label = features_.at(batch.image.size(0));
    add_part(result, "feat", feature_cosine(output.features, label, options_.alpha), options_.lambda_feat);
  }
  return result;
}

}  // namespace depthstill
