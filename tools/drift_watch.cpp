#include "tools/drift_watch.h"

#include <algorithm>
#include <cmath>

namespace depthstill {
namespace {

constexpr const char *kReference = "drift_reference", *kDecades = "drift_warnings", *kDead = "dead_steps";

std::optional<double> find(const StepRecord& record, const std::string& name) {
  for (const auto& [figure, value] : record.figures) {
    if (figure == name) return value;
  }
  return {};
}

}  // namespace

std::optional<std::string> DriftWatch::look(const StepRecord& record) {
  const auto student = find(record, "s_student"), teacher = find(record, "s_teacher"),
             median = find(record, "t_student"), bounded = find(record, "bounded");
  if (!student || !teacher || !median || !bounded || *teacher <= 0) return {};
  dead_ = *median == 0 && *bounded == 1 ? dead_ + 1 : 0;
  check(dead_ < kDeadSteps, "step ", record.step, ": the student's maps were 0 everywhere in ", kDeadSteps,
        " logged steps: its last ReLU is closed and learns nothing any more; start anew with another train.seed or a "
        "lower optimiser.lr");
  if (*student <= 0 || record.step < kReferenceStep) return {};
  const double ratio = *student / *teacher;
  if (reference_ == 0) reference_ = ratio;
  const double drift = std::max(ratio / reference_, reference_ / ratio);
  if (drift <= factor_ * std::pow(10.0, decades_)) return {};
  while (drift > factor_ * std::pow(10.0, decades_)) ++decades_;
  return concat_text("warning: step ", record.step, ": the scale of the student's maps has ",
                     ratio > reference_ ? "grown" : "shrunk", " by a factor of ", drift, " since step ", kReferenceStep,
                     anchored_ ? "; a greater distill.anchor holds it" : "; no loss holds it: distill.anchor does");
}

Metadata DriftWatch::metadata() const {
  return {{kReference, metadata_text(reference_)}, {kDecades, metadata_text(decades_)}, {kDead, metadata_text(dead_)}};
}

void DriftWatch::restore(const Metadata& saved) {
  if (!saved.contains(kReference) || !saved.contains(kDecades) || !saved.contains(kDead)) return;
  reference_ = metadata_number<double>(saved, kReference, "checkpoint");
  decades_ = metadata_number<int>(saved, kDecades, "checkpoint");
  dead_ = metadata_number<int>(saved, kDead, "checkpoint");
}

}  // namespace depthstill
