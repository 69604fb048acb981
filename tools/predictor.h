// Depth of one image by a student: normalise, pad to the network's size multiple, run, undo; optionally averaged with
// the mirrored image (the reference's protocol). Each pass is clamped before averaging.
#pragma once

#include "engine/data/pixels.h"
#include "engine/io/depth_file.h"
#include "engine/io/image.h"
#include "models/student.h"

namespace depthstill {

struct PredictorOptions {
  bool flip = true;
  DType precision = DType::kFloat;
  // Network input per pixel of the image, height and width; 1: the image's own size. The depth map is resized back
  // bilinearly.
  double scale_height = 1, scale_width = 1;
};

class Predictor {
 public:
  // The student must be in eval mode and on `device`; it is not owned and may be trained on between calls.
  Predictor(const Student& student, Device device, const PredictorOptions& options);

  // Metres, of the image's size, within the student's depth range.
  DepthMap operator()(const Image8& image) const;

 private:
  DepthMap run(const Image8& input) const;

  const Student& student_;
  Device device_;
  PredictorOptions options_;
};

// Repeats the last row and column until both sides are multiples of `multiple`.
Image8 pad_to_multiple(const Image8& image, int multiple);
Image8 mirror(const Image8& image);
// Bilinear on pixel centres, edges repeated.
DepthMap resize_bilinear(const DepthMap& depth, ImageSize size);

}  // namespace depthstill
