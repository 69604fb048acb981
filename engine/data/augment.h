// Random augmentation of training samples (TIE-KD's recipe): rotate, flip, crop, colour. This file draws the
// parameters; kernels/preprocess.h applies them to image and depth maps.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "engine/io/image.h"
#include "kernels/preprocess.h"

namespace depthstill {

struct AugmentSpec {
  // Size of the output, at most the sample's. A side that is 0 is the sample's, cut to a multiple of `multiple`.
  ImageSize crop{0, 0};
  int multiple = 1;
  double rotate_probability = 0.5, max_degrees = 2.5;  // angle uniform in +-max_degrees
  double flip_probability = 0.5;                       // left-right
  double colour_probability = 0.5;                     // gamma, brightness and gains, each uniform in 1 +- range
  double gamma_range = 0.1, brightness_range = 0.1, gain_range = 0.1;
  bool rotate_teacher = true;  // false: TIE-KD's published code, which leaves the teacher map unrotated
};

// One crop of a sample.
struct AugmentParams {
  PreprocessParams image;    // parameters for the image and the ground truth
  PreprocessParams teacher;  // the same but for the angle, which is 0 without rotate_teacher
  ImageSize crop;
};

// The size that a sample of size `frame` is cropped to.
ImageSize crop_of(const AugmentSpec& spec, ImageSize frame);

// The crop that sample `index` gets in `epoch`: a function of its arguments alone. frame: the sample's size.
AugmentParams draw_augment(const AugmentSpec& spec, ImageSize frame, uint64_t seed, int64_t epoch, int64_t index);

// A view of a sample: one crop, or several of one size. A batch has the same views of all its samples, and for each
// view tensors of its own (batch_tensors.h).
using View = std::vector<AugmentParams>;

// Draws a sample's views, as draw_augment() draws its crop.
using DrawViews = std::function<std::vector<View>(ImageSize frame, uint64_t seed, int64_t epoch, int64_t index)>;
DrawViews one_crop(const AugmentSpec& spec);
DrawViews whole_frame();  // unchanged

}  // namespace depthstill
