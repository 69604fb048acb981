// Maps by formula, which any language can repeat: u(t, i) is a hash of two integers, in [-1, 1).
#pragma once

#include <cstdint>
#include <vector>

#include "tests/hash_uniform.h"

namespace depthstill::testing_eval {

inline double u(uint32_t t, uint32_t i) { return test::hash_uniform(t, i); }

inline constexpr int kGoldenWidth = 40, kGoldenHeight = 30, kGoldenPixels = kGoldenWidth * kGoldenHeight;

struct GoldenMaps {
  std::vector<float> truth, disparity, relative_depth;  // (30, 40); truth 0 where unknown, some disparities < 0
};

inline GoldenMaps golden_maps() {
  GoldenMaps maps;
  for (uint32_t i = 0; i < kGoldenPixels; ++i) {
    const double known = 1.5 + 0.05 * (i % kGoldenWidth) + 0.1 * (i / kGoldenWidth) + 0.5 * u(22, i);
    const double g = u(21, i) < -0.8 ? 0 : known, sign = i % 97 == 0 ? -1 : 1;
    maps.truth.push_back(static_cast<float>(g));
    maps.disparity.push_back(static_cast<float>(sign * (40 / (g > 0.5 ? g : 0.5) + 6 + 3 * u(23, i))));
    maps.relative_depth.push_back(static_cast<float>(0.1 * g + 0.2 + 0.05 * u(24, i)));
  }
  return maps;
}

}  // namespace depthstill::testing_eval
