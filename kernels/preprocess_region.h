// A square region of a decoded frame, or a window of it, as a network's input: cut, mirrored, resized and normalised.
//   region    pixel (i, j) = frame (top + i, left + j), with `mirrored` (top + i, left + side - 1 - j)
//   resized   to scaled x scaled pixels by cubic convolution (upsample_bicubic.h: A = -0.75, no antialiasing, the
//             region's edges repeated, positions in double), as the networks see images at inference; scaled = side
//             copies pixels exactly
//   window    output (r, c) is pixel (row + r, column + c) of that; a whole region is the window from (0, 0) whose size
//             is `scaled`. The cubic may overshoot 0 and 255.
//   y = (v - mean) / std per channel, with `colour` v clipped to [0, 255], then v^gamma * brightness * gain, clipped
// Bytes per output pixel: 3 (side / scaled)^2 read, 3 sizeof(T) written. Bound: the caches, 16 pixels read each.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/preprocess.h"
#include "kernels/upsample_bicubic.h"

namespace depthstill {

struct RegionParams {
  int top = 0, left = 0, side = 0;  // pixels of the frame; the region lies inside of it
  bool mirrored = false;
  int scaled = 0;           // pixels of a side after resizing
  int row = 0, column = 0;  // first pixel of the window
  bool colour = false;
  float gamma = 1.0f, brightness = 1.0f;
  float gain[3] = {1.0f, 1.0f, 1.0f};  // R, G, B
  float mean[3] = {kImageMean[0], kImageMean[1], kImageMean[2]};
  float stddev[3] = {kImageStd[0], kImageStd[1], kImageStd[2]};

  BicubicAxis axis() const { return {side, scaled, 0.0}; }
  // Column of the frame of the region's column j.
  DS_HOST_DEVICE int frame_column(int j) const { return left + (mirrored ? side - 1 - j : j); }
  // The output of channel k for the interpolated value v, 0..255.
  DS_HOST_DEVICE float normalised(float v, int k) const {
    if (colour) v = clip(std::pow(clip(v), gamma) * brightness * gain[k]);
    return (v - mean[k]) / stddev[k];
  }
  DS_HOST_DEVICE static float clip(float v) { return v < 0.0f ? 0.0f : v > 255.0f ? 255.0f : v; }
};

// image: uint8 (height, width, 3) RGB; y (size, size, 3), assigned. With CUDA, image is a device pointer.
namespace cpu {
template <class T>
void preprocess_region(Stream stream, const Frame& frame, const uint8_t* image, const RegionParams& params,
                       int64_t size, T* y);
}  // namespace cpu
namespace cuda {
template <class T>
void preprocess_region(Stream stream, const Frame& frame, const uint8_t* image, const RegionParams& params,
                       int64_t size, T* y);
}  // namespace cuda
}  // namespace depthstill
