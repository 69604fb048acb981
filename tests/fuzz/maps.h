// Depth maps that are read twice, whole and by rows.
#pragma once

#include <cmath>
#include <cstring>
#include <string>

#include "engine/io/map_file.h"
#include "tests/fuzz/target.h"

namespace depthstill::fuzz {

inline DepthMap read_in_parts(const std::string& path) {
  DepthMap map = read_map(path, {0, MapFormat::Unusable::kKept});
  const auto width = static_cast<size_t>(map.width);
  std::vector<float> row(width);
  const MapReader reader(path, {0, MapFormat::Unusable::kKept});
  for (int y = 0; y < map.height; y += 1 + map.height / 4) {
    reader.read_rows(y, y + 1, row.data());
    const float* const whole = &map.values[static_cast<size_t>(y) * width];
    expect(std::memcmp(row.data(), whole, width * sizeof(float)) == 0, "another row ", y,
           " alone than with the others");
  }
  for (const float value : read_map(path, {0, MapFormat::Unusable::kHole}).values) {
    expect(std::isfinite(value) && value >= 0, "a depth of ", value);
  }
  return map;
}

}  // namespace depthstill::fuzz
