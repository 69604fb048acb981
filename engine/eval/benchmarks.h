// The data sets that depth is compared on, a row each: how their lists and files are to be read, and which pixels their
// published figures count. A new set or protocol is a row.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/data/dataset.h"

namespace depthstill {

// A part of the frame to which figures are restricted.
struct EvalBox {
  const char* name;   // "garg": name in options and recipes
  const char* title;  // "Garg": name in descriptions
  Rect rect;
};

struct Benchmark {
  const char* name;
  const char* title;     // name in messages
  const char* citation;  // source of the frame, boxes and limits
  // Lists and files
  ListOrder order;         // order in which training reads a list
  double units_per_metre;  // units of ground truth in PNG
  CropRule crop;           // crop of training images
  // Comparison
  CropRule frame;               // part of the image that the network and the metrics see
  const char* frame_text;       // name in descriptions
  ImageSize box_frame;          // the only size of a frame that boxes are defined on
  std::vector<EvalBox> boxes;   // the first is the default
  double min_depth, max_depth;  // metres: truth outside is left out, predictions are clamped
  int teacher_first_row;        // against a teacher, rows above are left out
};

std::span<const Benchmark> benchmarks();
const Benchmark& find_benchmark(std::string_view name);  // throws Error that lists the names

// The set under `root`, as training reads it; `list` is relative to the root. Teacher not set.
DatasetSpec dataset_spec(const Benchmark& benchmark, std::string root, std::string list);

// The box of that name: "none" is no box (null), "default" the first, if any. Throws Error if the set has no such box.
const EvalBox* find_box(const Benchmark& benchmark, std::string_view name);
// Names of all boxes of all sets.
std::vector<std::string> box_names();

}  // namespace depthstill
