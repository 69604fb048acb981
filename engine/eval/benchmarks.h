// The data sets that depth is compared on, a row each: how their lists and files are to be read, and which pixels their
// published figures count. A new set or protocol is a row.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/data/dataset.h"

namespace depthstill {

enum class TruthFile : uint8_t {
  kMap,        // a map file (engine/io/map_file.h), 0 where nothing is known
  kRawFloats,  // ETH3D: float32, little-endian, row after row, no header; infinity where nothing is known
  kLogPng,     // MoGe: 16-bit PNG of logarithms between its texts `near` and `far` (truth_file.h)
  kWithMask,   // DIODE: a map file and, as the list's third column, one that is 0 where it does not count
};

// A part of the frame to which figures are restricted.
struct EvalBox {
  const char* name;   // "garg": name in options and recipes
  const char* title;  // "Garg": name in descriptions
  Rect rect;          // on the benchmark's box_frame
  // Where the published box is fractions of any frame: of its rows (top, bottom) and columns (left, right). All 0: not.
  double top = 0, bottom = 0, left = 0, right = 0;
  bool on_any_frame() const { return bottom > 0; }
};
// The box on a frame: its fractions, truncated to pixels, or rect.
Rect rect_on(const EvalBox& box, ImageSize frame);

inline constexpr const char* kWholeImage = "whole image at its own size";

struct Benchmark {
  const char* name;
  const char* title;     // name in messages
  const char* citation;  // source of the frame, boxes and limits
  // Lists and files
  ListOrder order = ListOrder::kAsWritten;  // order in which training reads a list
  ListForm list_form = ListForm::kColumns;  // what an evaluation without a recipe takes for a list
  TruthFile truth = TruthFile::kMap;        // how files of ground truth are made
  double units_per_metre;                   // units of ground truth in PNG
  CropRule crop = CropRule::kNone;          // crop of training images
  // Comparison
  CropRule frame = CropRule::kNone;      // part of the image that the network and the metrics see
  const char* frame_text = kWholeImage;  // name in descriptions
  ImageSize box_frame = {};              // the only size of a frame that boxes are defined on
  std::vector<EvalBox> boxes = {};       // the first is the default
  double min_depth, max_depth;           // metres: truth outside is left out, predictions are clamped
  int teacher_first_row = 0;             // against a teacher, rows above are left out
  int scene_level = 1;                   // which folder above an image, counted from it, is that of its scene
};

std::span<const Benchmark> benchmarks();
const Benchmark& find_benchmark(std::string_view name);  // throws Error that lists the names

// The set under `root`, as training reads it; `list` is relative to the root. Teacher not set.
DatasetSpec dataset_spec(const Benchmark& benchmark, std::string root, std::string list);

// What the images of a scene have in common: the path of an image up to the folder of its scene, "" without a folder.
// KITTI: the drive; ScanNet and DIODE: the scan; else the scene.
std::string scene_of(const Benchmark& benchmark, std::string_view image);

// The box of that name: "none" is no box (null), "default" the first, if any. Throws Error if the set has no such box.
const EvalBox* find_box(const Benchmark& benchmark, std::string_view name);
// Names of all boxes of all sets.
std::vector<std::string> box_names();

}  // namespace depthstill
