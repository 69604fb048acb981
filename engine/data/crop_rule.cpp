#include "engine/data/crop_rule.h"

#include "kernels/core/error.h"

namespace depthstill {
namespace {

Rect whole(ImageSize size) { return {0, 0, size.width, size.height}; }
Rect kitti_benchmark(ImageSize size) { return {(size.width - 1216) / 2, size.height - 352, 1216, 352}; }
Rect nyu_border(ImageSize) { return {41, 45, 560, 426}; }

constexpr CropRuleRow kRules[] = {
    {CropRule::kNone, "none", "", {1, 1}, whole},
    {CropRule::kKittiBenchmark, "kitti_benchmark", "the KB crop", {1216, 352}, kitti_benchmark},
    {CropRule::kNyuBorder, "nyu_border", "the NYU border crop", {601, 471}, nyu_border},
};

}  // namespace

std::span<const CropRuleRow> crop_rules() { return kRules; }

const CropRuleRow& row_of(CropRule rule) { return kRules[static_cast<size_t>(rule)]; }

Rect crop_rect(CropRule rule, ImageSize size, const std::string& where) {
  const CropRuleRow& row = row_of(rule);
  check(size.width >= row.least.width && size.height >= row.least.height, where, ": expected an image of at least ",
        row.least, " for ", row.what, ", found ", size);
  return row.rect(size);
}

}  // namespace depthstill
