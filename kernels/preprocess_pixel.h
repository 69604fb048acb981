// One output pixel of kernels/preprocess.h: the arithmetic that the CPU loop and the CUDA kernel share.
#pragma once

#include <cmath>

#include "kernels/preprocess.h"

namespace depthstill {

// A SourceMap says where an output pixel comes from in the frame.
struct SourceMap {
  int width, height, crop_x, crop_y;
  bool flip, rotate;
  float cosine, sine, centre_x, centre_y;

  SourceMap(const Frame& frame, const PreprocessParams& params)
      : width(static_cast<int>(frame.width)),
        height(static_cast<int>(frame.height)),
        crop_x(params.crop_x),
        crop_y(params.crop_y),
        flip(params.flip),
        rotate(params.angle_degrees != 0.0f),
        centre_x(0.5f * static_cast<float>(width - 1)),
        centre_y(0.5f * static_cast<float>(height - 1)) {
    const double radians = params.angle_degrees * 3.14159265358979323846 / 180.0;
    cosine = static_cast<float>(std::cos(radians));
    sine = static_cast<float>(std::sin(radians));
  }

  struct Point {
    int x, y;
  };
  DS_HOST_DEVICE Point before_rotation(int r, int c) const {
    const int x = crop_x + c;
    return {flip ? width - 1 - x : x, crop_y + r};
  }
  struct Position {
    float x, y;
  };
  DS_HOST_DEVICE Position rotated(Point p) const {
    const float dx = static_cast<float>(p.x) - centre_x, dy = static_cast<float>(p.y) - centre_y;
    return {cosine * dx + sine * dy + centre_x, -sine * dx + cosine * dy + centre_y};
  }
  DS_HOST_DEVICE bool inside(int x, int y) const { return x >= 0 && x < width && y >= 0 && y < height; }
};

DS_HOST_DEVICE inline void preprocess_pixel(const Frame& frame, const uint8_t* image, const PreprocessParams& params,
                                            const SourceMap& map, int r, int c, float rgb[3]) {
  constexpr float kMean[3] = {kImageMean[0], kImageMean[1], kImageMean[2]};
  constexpr float kStd[3] = {kImageStd[0], kImageStd[1], kImageStd[2]};
  const SourceMap::Point p = map.before_rotation(r, c);
  if (!map.rotate) {
    const uint8_t* pixel = image + (p.y * frame.row_stride + p.x) * 3;
    for (int k = 0; k < 3; ++k) rgb[k] = static_cast<float>(pixel[k]);
  } else {
    const SourceMap::Position s = map.rotated(p);
    const float left = std::floor(s.x), top = std::floor(s.y);
    const float wx = s.x - left, wy = s.y - top;
    rgb[0] = rgb[1] = rgb[2] = 0.0f;
    for (int tap = 0; tap < 4; ++tap) {
      const int x = static_cast<int>(left) + tap % 2, y = static_cast<int>(top) + tap / 2;
      if (!map.inside(x, y)) continue;
      const float w = (tap % 2 ? wx : 1.0f - wx) * (tap / 2 ? wy : 1.0f - wy);
      const uint8_t* pixel = image + (y * frame.row_stride + x) * 3;
      for (int k = 0; k < 3; ++k) rgb[k] += w * static_cast<float>(pixel[k]);
    }
  }
  for (int k = 0; k < 3; ++k) {
    if (params.colour) {
      const float v = std::pow(rgb[k], params.gamma) * params.brightness * params.gain[k];
      rgb[k] = v < 0.0f ? 0.0f : (v > 255.0f ? 255.0f : v);
    }
    rgb[k] = (rgb[k] - kMean[k]) / kStd[k];
  }
}

DS_HOST_DEVICE inline float preprocess_depth_pixel(const Frame& frame, const float* depth, const SourceMap& map, int r,
                                                   int c) {
  SourceMap::Point p = map.before_rotation(r, c);
  if (map.rotate) {
    const SourceMap::Position s = map.rotated(p);
    p = {static_cast<int>(std::floor(s.x + 0.5f)), static_cast<int>(std::floor(s.y + 0.5f))};
  }
  return map.inside(p.x, p.y) ? depth[p.y * frame.row_stride + p.x] : 0.0f;
}

}  // namespace depthstill
