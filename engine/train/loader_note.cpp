#include "engine/train/loader_note.h"

#include <cmath>

#include "kernels/core/error.h"

namespace depthstill {

std::optional<std::string> LoaderNote::after_step(int64_t epoch, double seconds_waiting, double seconds_in_steps) {
  constexpr int64_t kSteps = 50;
  constexpr double kShare = 0.1;
  if (++steps_ != 0 && steps_ < kSteps) return std::nullopt;
  const double waited = seconds_waiting - waiting_, worked = seconds_in_steps - in_steps_;
  const bool first = steps_ == 0;
  waiting_ = seconds_waiting;
  in_steps_ = seconds_in_steps;
  if (first) return std::nullopt;
  steps_ = 0;
  if (epoch == noted_epoch_ || waited <= kShare * (waited + worked)) return std::nullopt;
  noted_epoch_ = epoch;
  return concat_text("note: ", std::lround(100 * waited / (waited + worked)), " % of the last ", kSteps,
                     " steps was waiting for data; data.workers above ", workers_,
                     packed_ ? " or a faster disk would help" : " or `depthstill pack` would help");
}

}  // namespace depthstill
