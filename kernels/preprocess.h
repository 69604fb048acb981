// Augmentation and normalisation of one sample, from decoded pixels to its slot of the batch. Output pixel (r, c):
//   position in the frame      px = crop_x + c, py = crop_y + r; with flip px = width - 1 - px
//   position before rotation   by angle t (clockwise) about the centre ((width - 1) / 2, (height - 1) / 2):
//                              d = p - centre
//                              sx = cos(t) dx + sin(t) dy + centre_x
//                              sy = -sin(t) dx + cos(t) dy + centre_y
//   image: v = bilinear at s, 0 outside; with colour v = clip(v^gamma * brightness * gain[k], 0, 255) on the scale
//          0..255; y = (v - mean[k]) / std[k]
//   depth: y = nearest at s, 0 outside
// The reference (TIE-KD) rotates 8-bit images and rounds after interpolating; here the interpolated value stays float.
// Without rotation the two agree.
// Bound: memory without colour, arithmetic (three powers per pixel) with it. Bytes per pixel: image 3 + 3 * sizeof(T),
// depth 8.
#pragma once

#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

inline constexpr float kImageMean[3] = {123.675f, 116.28f, 103.53f};  // R, G, B of ImageNet, scale 0..255
inline constexpr float kImageStd[3] = {58.395f, 57.12f, 57.375f};

struct PreprocessParams {
  int crop_x = 0, crop_y = 0;  // first column and row of the crop, in the rotated and flipped frame
  bool flip = false;
  float angle_degrees = 0.0f;  // clockwise; 0 copies pixels exactly
  bool colour = false;         // true: gamma, brightness and gain apply
  float gamma = 1.0f, brightness = 1.0f;
  float gain[3] = {1.0f, 1.0f, 1.0f};  // R, G, B
};

// The frame that augmentation sees may be a window of a stored image (the KB crop): a pointer to its first pixel and
// the distance between its rows.
struct Frame {
  int64_t height = 0, width = 0;
  int64_t row_stride = 0;  // pixels, >= width
};

// image: uint8 (height, width, 3) RGB; y (crop_height, crop_width, 3). The crop must lie inside the frame.
// depth: float (height, width);        y (crop_height, crop_width).
// With CUDA, image and depth are device pointers.
namespace cpu {
template <class T>
void preprocess_image(Stream stream, const Frame& frame, const uint8_t* image, const PreprocessParams& params,
                      int64_t crop_height, int64_t crop_width, T* y);
void preprocess_depth(Stream stream, const Frame& frame, const float* depth, const PreprocessParams& params,
                      int64_t crop_height, int64_t crop_width, float* y);
}  // namespace cpu
namespace cuda {
template <class T>
void preprocess_image(Stream stream, const Frame& frame, const uint8_t* image, const PreprocessParams& params,
                      int64_t crop_height, int64_t crop_width, T* y);
void preprocess_depth(Stream stream, const Frame& frame, const float* depth, const PreprocessParams& params,
                      int64_t crop_height, int64_t crop_width, float* y);
}  // namespace cuda
}  // namespace depthstill
