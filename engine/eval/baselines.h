// Baselines are predictions that look at no image: what the depth of a training list alone gives. A figure that does
// not beat them says that nothing was learnt from the images.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/eval/protocol.h"
#include "engine/io/map_file.h"

namespace depthstill {

struct EvalItem;  // evaluate.h

struct Baseline {
  std::string name;         // "constant", "row_median": keys in JSON
  std::string text;         // "constant 7.93 m, the one that is least in abs_rel"
  std::vector<float> rows;  // metres, in equal parts of the frame's height from the top; one: the same everywhere
};

struct Baselines {
  std::string list;    // the training list that they were measured on
  int64_t images = 0;  // images with a pixel that counts
  std::vector<Baseline> each;
};

// Measures over the pixels of `items` that count under the protocol, of a training list read as `truth_format`:
//   constant     the c that makes the mean over images of the mean |c - g| / g least, which is abs_rel as evaluations
//                take it: the median of g with weights 1 / (n g), n the number of the image's pixels
//   row_median   the median of g in each of the rows of the first frame, at most 512, which other frames share by
//                relative height; a row without pixels takes the nearest that has some
// Depths are counted in steps of a thousandth. `progress` is called before the first image and now and then until the
// last one is done; what it throws ends the measurement. It may be empty. Throws Error where a map cannot be read or no
// pixel counts.
Baselines measure_baselines(const Protocol& protocol, const std::string& list, std::span<const EvalItem> items,
                            const MapFormat& truth_format,
                            const std::function<void(int64_t done, int64_t total)>& progress = {});

// The baseline as a map of this size.
DepthMap baseline_map(const Baseline& baseline, ImageSize size);

}  // namespace depthstill
