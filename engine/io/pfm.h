// PFM, one channel ("Pf"): rows stored from the bottom up, byte order given by the sign of the scale. The magnitude
// of the scale is not applied, as is usual.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace depthstill {

struct FloatMap {
  int width = 0, height = 0;
  std::vector<float> values;  // (height, width), top row first
};

FloatMap read_pfm(const std::string& path);
FloatMap decode_pfm(std::span<const uint8_t> file, const std::string& name);

// Little-endian, scale -1, atomically. values: (height, width), top row first.
void write_pfm(const std::string& path, int width, int height, std::span<const float> values);

}  // namespace depthstill
