// Depth maps in metres, in the formats that depth data sets use. The unit of stored numbers is stated by the caller
// and never guessed from their values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/io/image.h"

namespace depthstill {

struct DepthMap {
  int width = 0, height = 0;
  std::vector<float> values;  // (height, width); 0 = no depth known
  ImageSize size() const { return {width, height}; }
  bool empty() const { return values.empty(); }
};

struct MapFormat {
  // Metres per stored unit: KITTI 1/256, NYU 1/1000, TIE-KD teacher maps 80/65535. 0 = not stated: an error for PNG,
  // 1 for .npy and .pfm.
  double metres_per_unit = 0;
  // Ground truth marks pixels without depth by 0, a negative number, NaN or infinity; all become 0. With false, as
  // for teacher maps, anything but a finite number >= 0 is an error that names the pixel.
  bool holes_allowed = true;
};

// By extension: .png (16-bit grey), .npy ((H, W), or more dimensions of size 1 around them), .pfm (one channel).
DepthMap read_map(const std::string& path, const MapFormat& format);

// The same formats, atomically. PNG values are rounded to the nearest unit and held to 0..65535.
void write_map(const std::string& path, const DepthMap& depth, const MapFormat& format);

}  // namespace depthstill
