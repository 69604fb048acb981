// How well a teacher's map agrees with the ground truth of its frame, and which frames of a list stand out. Nothing
// here depends on a scale, so that a wrongly stated unit does not hide what else is wrong.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "engine/io/map_file.h"

namespace depthstill {

struct MapAgreement {
  bool known = false;                                // false: too few pixels to compare, and nothing else is set
  double ratio = 0;                                  // median of teacher / truth
  double spread = 0;                                 // half the width of the middle 68 % of log(teacher / truth)
  double correlation = 0;                            // of log(teacher) with log(truth)
  double turned_spread = 0, turned_correlation = 0;  // the same with the teacher's map upside down
};

// Compares where both are > 0 and truth is less than `max_depth` metres; beyond it, if it is nowhere less.
MapAgreement compare_maps(const DepthMap& teacher, const DepthMap& truth, double max_depth);

// Correlation of log(value) with the row, over values > 0; 0 for too few of them. Depth falls towards the lower edge of
// most images, where things are near, and inverse depth rises.
double rise_towards_bottom(const DepthMap& map);

// A ListAgreement holds the medians over those frames of a list that are known.
struct ListAgreement {
  int64_t frames = 0;
  double ratio = 0, spread = 0, correlation = 0;
  double deviation = 0;  // median of |log(ratio / the list's ratio)|
};
ListAgreement agreement_of(std::span<const MapAgreement> frames);

// What makes a frame unlike the others of its list, as a phrase ("upside down? ..."); empty: nothing. The thresholds
// leave alone the frames of a teacher that is off by 15 % everywhere and by another factor in every frame.
std::string oddity(const MapAgreement& frame, const ListAgreement& list);

}  // namespace depthstill
