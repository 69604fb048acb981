// The parts of images that networks are trained on and scored on.
#pragma once

#include <span>
#include <string>

#include "engine/io/image.h"

namespace depthstill {

enum class CropRule {
  kNone,
  kKittiBenchmark,  // KB crop: 352 rows x 1216 columns, bottom centre: top = H - 352, left = (W - 1216) / 2
  kNyuBorder,       // rows 45:471, columns 41:601, without the white frame of NYU images
};

struct CropRuleRow {
  CropRule rule;
  const char* name;  // name in recipes
  const char* what;  // name in messages
  ImageSize least;   // smallest size of an image
  Rect (*rect)(ImageSize size);
};
std::span<const CropRuleRow> crop_rules();
const CropRuleRow& row_of(CropRule rule);

// The part of an image of `size` that the rule keeps; throws Error "WHERE: expected an image of at least ..., found".
Rect crop_rect(CropRule rule, ImageSize size, const std::string& where);

}  // namespace depthstill
