#include "engine/eval/benchmarks.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "kernels/core/error.h"

namespace depthstill {
namespace {

constexpr double kMinDepth = 1e-3;
constexpr double kLeft = 0.03594771, kRight = 0.96405229;  // of the columns, Garg's and Eigen's

// Fractions as AdaBins and Monodepth2 have them; the rectangles are what they are on KITTI's benchmark crop.
Benchmark kitti() {
  return {.name = "kitti",
          .title = "KITTI",
          .citation = "TIE-KD (Choi et al. 2023) by AdaBins' evaluation: KB crop, Garg et al. 2016, Eigen et al. 2014",
          .order = ListOrder::kByImage,
          .units_per_metre = 256,
          .crop = CropRule::kKittiBenchmark,
          .frame = CropRule::kKittiBenchmark,
          .frame_text = "352x1216 bottom-centre frame (KB crop), no resize",
          .box_frame = {1216, 352},
          .boxes = {{"garg", "Garg", {43, 143, 1129, 206}, 0.40810811, 0.99189189, kLeft, kRight},
                    {"eigen", "Eigen", {43, 117, 1129, 204}, 0.3324324, 0.91351351, kLeft, kRight}},
          .min_depth = kMinDepth,
          .max_depth = 80,
          .teacher_first_row = 110,
          .scene_level = 3};
}

const std::vector<Benchmark>& table() {
  static const std::vector<Benchmark> rows = {
      kitti(),
      {.name = "nyu",
       .title = "NYU",
       .citation = "NYU Depth v2 (Silberman et al. 2012) by BTS' evaluation: Eigen et al. 2014",
       .units_per_metre = 1000,
       .box_frame = {640, 480},
       .boxes = {{"eigen", "Eigen", {41, 45, 560, 426}}},
       .min_depth = kMinDepth,
       .max_depth = 10},
      {.name = "eth3d",
       .title = "ETH3D",
       .citation = "ETH3D (Schoeps et al. 2017), Marigold's list",
       .truth = TruthFile::kRawFloats,
       .units_per_metre = 1000,
       .min_depth = 1e-5,
       .max_depth = std::numeric_limits<double>::infinity(),
       .scene_level = 3},
      {.name = "scannet",
       .title = "ScanNet",
       .citation = "ScanNet (Dai et al. 2017), Marigold's list",
       .units_per_metre = 1000,
       .min_depth = kMinDepth,
       .max_depth = 10,
       .scene_level = 2},
      {.name = "diode",
       .title = "DIODE",
       .citation = "DIODE (Vasiljevic et al. 2019), Marigold's list",
       .truth = TruthFile::kWithMask,
       .units_per_metre = 1000,
       .min_depth = 0.6,
       .max_depth = 350},
      {.name = "moge",
       .title = "MoGe's sets",
       .citation = "MoGe (Wang et al. 2025), the sets of its evaluation as it distributes them",
       .list_form = ListForm::kFolders,
       .truth = TruthFile::kLogPng,
       .units_per_metre = 1,
       .min_depth = 0,
       .max_depth = std::numeric_limits<double>::infinity(),
       .scene_level = 2},
      {.name = "plain",
       .title = "plain",
       .citation = "",
       .units_per_metre = 256,
       .min_depth = kMinDepth,
       .max_depth = 80},
  };
  return rows;
}

}  // namespace

Rect rect_on(const EvalBox& box, ImageSize frame) {
  if (!box.on_any_frame()) return box.rect;
  const auto at = [](double fraction, int side) { return static_cast<int>(fraction * side); };
  const int left = at(box.left, frame.width), top = at(box.top, frame.height);
  return {left, top, at(box.right, frame.width) - left, at(box.bottom, frame.height) - top};
}

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
  spec.list_form = benchmark.list_form;
  return spec;
}

std::string scene_of(const Benchmark& benchmark, std::string_view image) {
  std::string_view scene = image;
  for (int level = 0; level < benchmark.scene_level; ++level) {
    const size_t slash = scene.rfind('/');
    if (slash == std::string_view::npos) return level == 0 ? "" : std::string(scene);
    scene = scene.substr(0, slash);
  }
  return std::string(scene);
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
