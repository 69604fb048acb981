#include "engine/data/augment.h"

#include "engine/random.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

float around_one(Philox& random, double range) { return static_cast<float>(random.uniform(1 - range, 1 + range)); }

}  // namespace

ImageSize crop_of(const AugmentSpec& spec, ImageSize frame) {
  const auto side = [&](int crop, int whole) { return crop > 0 ? crop : whole - whole % spec.multiple; };
  return {side(spec.crop.width, frame.width), side(spec.crop.height, frame.height)};
}

AugmentParams draw_augment(const AugmentSpec& spec, ImageSize frame, uint64_t seed, int64_t epoch, int64_t index) {
  const ImageSize crop = crop_of(spec, frame);
  check(crop.width >= 1 && crop.height >= 1 && crop.width <= frame.width && crop.height <= frame.height,
        "augment: expected a sample of at least the crop's ", crop, ", found ", frame);
  Philox random(seed, stream_id(RandomUse::kAugment, epoch, index));
  // Every number is drawn whether it is used or not, so that switching one step off leaves the others as they were.
  const bool rotate = random.uniform() < spec.rotate_probability;
  const double angle = random.uniform(-spec.max_degrees, spec.max_degrees);
  AugmentParams params;
  params.crop = crop;
  PreprocessParams& image = params.image;
  image.angle_degrees = rotate ? static_cast<float>(angle) : 0.0f;
  image.flip = random.uniform() < spec.flip_probability;
  image.crop_x = static_cast<int>(random.below(static_cast<uint32_t>(frame.width - crop.width) + 1));
  image.crop_y = static_cast<int>(random.below(static_cast<uint32_t>(frame.height - crop.height) + 1));
  image.colour = random.uniform() < spec.colour_probability;
  image.gamma = around_one(random, spec.gamma_range);
  image.brightness = around_one(random, spec.brightness_range);
  for (float& gain : image.gain) gain = around_one(random, spec.gain_range);
  params.teacher = image;
  if (!spec.rotate_teacher) params.teacher.angle_degrees = 0.0f;
  return params;
}

DrawViews one_crop(const AugmentSpec& spec) {
  return [spec](ImageSize frame, uint64_t seed, int64_t epoch, int64_t index) -> std::vector<View> {
    return {{draw_augment(spec, frame, seed, epoch, index)}};
  };
}

DrawViews whole_frame() {
  return [](ImageSize frame, uint64_t, int64_t, int64_t) -> std::vector<View> {
    AugmentParams params;
    params.crop = frame;
    return {{params}};
  };
}

}  // namespace depthstill
