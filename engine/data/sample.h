// One sample of a data set: image, ground truth and teacher map, in memory that the sample owns or that it only refers
// to (a mapped shard of engine/data/packed.h). Copies of a sample share that memory.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "engine/io/image.h"
#include "engine/io/map_file.h"

namespace depthstill {

struct SampleImage {
  int width = 0, height = 0;
  std::span<const uint8_t> rgb;  // (height, width, 3)
  std::shared_ptr<const void> owner;

  SampleImage() = default;
  SampleImage(Image8 image);  // owns it
  ImageSize size() const { return {width, height}; }
  Image8 copy() const;
};

// Metres as floats, or as 16-bit units of a scale: exactly one of the two spans is in use. 0 = no depth known.
struct SampleDepth {
  int width = 0, height = 0;
  std::span<const float> values;    // (height, width)
  std::span<const uint16_t> units;  // (height, width): float(units * metres_per_unit), the product in double
  double metres_per_unit = 0;
  std::shared_ptr<const void> owner;

  SampleDepth() = default;
  SampleDepth(DepthMap depth);  // owns it
  ImageSize size() const { return {width, height}; }
  bool empty() const { return width == 0; }
  void write_values(float* out) const;  // height * width of them
  DepthMap copy() const;
};

struct Sample {
  int64_t index = 0;  // index in the data set
  std::string name;   // the image's path in the list
  std::string where;  // "LIST:LINE", for messages
  double focal = 0;
  ImageSize stored_size;  // size of the image file, before crop and resize
  SampleImage image;
  SampleDepth depth, teacher;  // maps as large as the image, or empty
  size_t bytes() const;        // size in memory, mapped or not
};

}  // namespace depthstill
