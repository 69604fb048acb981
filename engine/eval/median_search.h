// The median of floats that are seen part by part, twice, and never kept: the first pass counts the upper halves of
// their bits, the second the lower halves of those that share theirs with a middle value. Counts have no order, so that
// parts may come from several threads.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "engine/eval/alignment.h"

namespace depthstill {

class MedianSearch {
 public:
  MedianSearch();
  // The first pass, over all values but NaN. Safe from several threads.
  void count_upper(std::span<const float> values);
  // Between the passes; there has to be a value.
  void begin_second();
  // The second pass, over the same values. Safe from several threads.
  void count_lower(std::span<const float> values);
  // Of an even count the mean of the two middle values, or the lower of them.
  float median(bool lower) const;

 private:
  using Counts = std::vector<int64_t>;
  // A middle value: the upper half of its bits, and which it is, from 0, of those that share it.
  struct Middle {
    uint32_t bin = 0;
    int64_t rank = 0;
    Counts lower;
  };

  std::mutex mutex_;
  int64_t total_ = 0;
  Counts upper_;
  std::array<Middle, 2> middles_;
};

// The fit of Alignment::kMedian, from the medians. Throws Error if that of predictions is not positive.
Fit median_fit(float prediction, float truth);

}  // namespace depthstill
