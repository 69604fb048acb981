// The learning rate of update k = 0, 1, ..., N - 1 of a run of N updates.
//   constant     lr
//   one_cycle    from lr / div_factor up to lr at k = pct_start N - 1, then down to lr / div_factor / final_div_factor
//                at k = N - 1, along half a cosine both ways (Smith and Topin 2017, as mmcv and
//                torch.optim.OneCycleLR)
//   polynomial   min_lr + (lr - min_lr) (1 - k / N)^power (as mmcv)
// Warm-up: for k < warmup_updates, the constant and polynomial rates are multiplied by
//   1 - (1 - k / warmup_updates) (1 - warmup_ratio).
#pragma once

#include <cstdint>
#include <string_view>

namespace depthstill {

struct Schedule {
  enum class Kind : uint8_t { kConstant, kOneCycle, kPolynomial };

  Kind kind = Kind::kOneCycle;
  double lr = 1e-3;  // the largest
  double pct_start = 0.3, div_factor = 25.0, final_div_factor = 100.0;
  double power = 1.0, min_lr = 0.0;
  int64_t warmup_updates = 0;
  double warmup_ratio = 0.1;

  double at(int64_t update, int64_t updates) const;
};

// "constant", "one_cycle" or "polynomial"; throws Error for anything else.
Schedule::Kind parse_schedule_kind(std::string_view text);

}  // namespace depthstill
