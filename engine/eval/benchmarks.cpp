#include "engine/eval/benchmarks.h"

#include <algorithm>
#include <utility>

#include "kernels/core/error.h"

namespace depthstill {
namespace {

constexpr double kMinDepth = 1e-3;

// Garg: fractions 0.40810811, 0.99189189 of 352 rows and 0.03594771, 0.96405229 of 1216 columns; Eigen: 0.3324324,
// 0.91351351 of the rows and the same columns; truncated, as AdaBins evaluates them.
const std::vector<Benchmark>& table() {
  static const std::vector<Benchmark> rows = {
      {.name = "kitti",
       .title = "KITTI",
       .citation = "TIE-KD (Choi et al. 2023) by AdaBins' evaluation: KB crop, Garg et al. 2016, Eigen et al. 2014",
       .order = ListOrder::kByImage,
       .units_per_metre = 256,
       .crop = CropRule::kKittiBenchmark,
       .frame = CropRule::kKittiBenchmark,
       .frame_text = "352x1216 bottom-centre frame (KB crop), no resize",
       .box_frame = {1216, 352},
       .boxes = {{"garg", "Garg", {43, 143, 1129, 206}}, {"eigen", "Eigen", {43, 117, 1129, 204}}},
       .min_depth = kMinDepth,
       .max_depth = 80,
       .teacher_first_row = 110},
      {.name = "nyu",
       .title = "NYU",
       .citation = "NYU Depth v2 (Silberman et al. 2012) by BTS' evaluation: Eigen et al. 2014",
       .order = ListOrder::kAsWritten,
       .units_per_metre = 1000,
       .crop = CropRule::kNone,
       .frame = CropRule::kNone,
       .frame_text = "whole image at its own size",
       .box_frame = {640, 480},
       .boxes = {{"eigen", "Eigen", {41, 45, 560, 426}}},
       .min_depth = kMinDepth,
       .max_depth = 10,
       .teacher_first_row = 0},
      {.name = "plain",
       .title = "plain",
       .citation = "",
       .order = ListOrder::kAsWritten,
       .units_per_metre = 256,
       .crop = CropRule::kNone,
       .frame = CropRule::kNone,
       .frame_text = "whole image at its own size",
       .box_frame = {},
       .boxes = {},
       .min_depth = kMinDepth,
       .max_depth = 80,
       .teacher_first_row = 0},
  };
  return rows;
}

}  // namespace

std::span<const Benchmark> benchmarks() { return table(); }

const Benchmark& find_benchmark(std::string_view name) {
  for (const Benchmark& row : table()) {
    if (row.name == name) return row;
  }
  fail("protocol: expected ",
       list_text(
           table(), [](const Benchmark& row) { return row.name; }, " or "),
       ", got '", name, "'");
}

DatasetSpec dataset_spec(const Benchmark& benchmark, std::string root, std::string list) {
  DatasetSpec spec;
  spec.root = std::move(root);
  spec.list = std::move(list);
  spec.crop = benchmark.crop;
  spec.depth.metres_per_unit = 1 / benchmark.units_per_metre;
  spec.min_depth = benchmark.min_depth;
  spec.max_depth = benchmark.max_depth;
  spec.order = benchmark.order;
  return spec;
}

const EvalBox* find_box(const Benchmark& benchmark, std::string_view name) {
  if (name == "none") return nullptr;
  if (name == "default") return benchmark.boxes.empty() ? nullptr : &benchmark.boxes.front();
  check(!benchmark.boxes.empty(), "the ", benchmark.name, " protocol has no crops");
  for (const EvalBox& box : benchmark.boxes) {
    if (box.name == name) return &box;
  }
  fail("the ", benchmark.name, " protocol has the crops ",
       list_text(benchmark.boxes, [](const EvalBox& box) { return box.name; }), ", not ", name);
}

std::vector<std::string> box_names() {
  std::vector<std::string> names;
  for (const Benchmark& row : table()) {
    for (const EvalBox& box : row.boxes) {
      if (std::find(names.begin(), names.end(), box.name) == names.end()) names.emplace_back(box.name);
    }
  }
  return names;
}

}  // namespace depthstill
