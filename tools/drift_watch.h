// Watches the scale of a student's maps, which the losses of relative maps leave free: it may drift until numbers
// overflow. And a student whose maps are 0 everywhere, for whom there is no way back.
#pragma once

#include <optional>
#include <string>

#include "engine/checkpoint.h"
#include "engine/train/trainer.h"

namespace depthstill {

class DriftWatch {
 public:
  static constexpr int64_t kReferenceStep = 100;
  static constexpr int kDeadSteps = 50;  // logged ones in a row

  // factor: of the student's deviation over the teacher's, against its value at the first logged step from
  // kReferenceStep on, in either direction. anchored: a loss holds it already.
  explicit DriftWatch(double factor, bool anchored = false) : factor_(factor), anchored_(anchored) {}

  // A warning when the factor is passed, and each time that it has grown by ten since. Throws Error for a student whose
  // maps were 0 everywhere for kDeadSteps. A record without figures of scales says nothing.
  std::optional<std::string> look(const StepRecord& record);

  // What a resumed run goes on with.
  Metadata metadata() const;
  void restore(const Metadata& saved);

 private:
  double factor_;
  bool anchored_;
  double reference_ = 0;  // 0: not known yet
  int decades_ = 0;       // warnings so far
  int dead_ = 0;
};

}  // namespace depthstill
