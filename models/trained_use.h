// A TrainedUse says how a network's training used it. It is stored with the weights, so that these give the same maps
// wherever they lie.
#pragma once

#include <optional>

#include "engine/dtype.h"
#include "engine/io/image.h"

namespace depthstill {

struct TrainedUse {
  // Images were resized to input_size, else by these factors; a network without any resizing has neither.
  std::optional<ImageSize> input_size;
  double scale_height = 1, scale_width = 1;
  int side = 0;                 // of the squares of images that it was trained on; 0: those were no squares
  bool flip = true;             // maps were judged averaged with those of the mirrored images
  DType dtype = DType::kFloat;  // type of the activations

  bool resizes() const { return input_size || scale_height != 1.0 || scale_width != 1.0; }
};

// "resized to 704x352", "resized by 0.5 in height and 0.25 in width", "brought to sides of 560", "not resized".
inline std::string input_text(const TrainedUse& use) {
  if (use.input_size) return concat_text("resized to ", *use.input_size);
  if (use.side > 0) return concat_text("brought to sides of ", use.side);
  if (!use.resizes()) return "not resized";
  return concat_text("resized by ", use.scale_height, " in height and ", use.scale_width, " in width");
}

}  // namespace depthstill
