#include "kernels/core/launch.h"
#include "kernels/core/pack.cuh"
#include "kernels/preprocess.h"
#include "kernels/preprocess_pixel.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;

// One thread per output pixel: reads up to 4 x 3 bytes (neighbours share them in L1), writes 3 values. About
// 3 + 3 * sizeof(T) bytes per pixel; bound by DRAM without colour, by three powf with it.
template <class T>
__global__ void __launch_bounds__(kThreads)
    preprocess_image_kernel(Frame frame, SourceMap map, PreprocessParams params, int64_t pixels, int crop_width,
                            const uint8_t* __restrict__ image, T* __restrict__ y) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= pixels) return;
  const int r = static_cast<int>(i / crop_width), c = static_cast<int>(i % crop_width);
  float rgb[3];
  preprocess_pixel(frame, image, params, map, r, c, rgb);
#pragma unroll
  for (int k = 0; k < 3; ++k) y[i * 3 + k] = static_cast<T>(rgb[k]);
}

// One thread per output pixel; 8 bytes each. Bound: DRAM.
__global__ void __launch_bounds__(kThreads)
    preprocess_depth_kernel(Frame frame, SourceMap map, int64_t pixels, int crop_width, const float* __restrict__ depth,
                            float* __restrict__ y) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= pixels) return;
  const int r = static_cast<int>(i / crop_width), c = static_cast<int>(i % crop_width);
  y[i] = preprocess_depth_pixel(frame, depth, map, r, c);
}

}  // namespace

template <class T>
void preprocess_image(Stream stream, const Frame& frame, const uint8_t* image, const PreprocessParams& params,
                      int64_t crop_height, int64_t crop_width, T* y) {
  const int64_t pixels = crop_height * crop_width;
  launch(preprocess_image_kernel<T>, blocks_for(pixels, kThreads), kThreads, 0, stream, frame, SourceMap(frame, params),
         params, pixels, static_cast<int>(crop_width), image, y);
}

void preprocess_depth(Stream stream, const Frame& frame, const float* depth, const PreprocessParams& params,
                      int64_t crop_height, int64_t crop_width, float* y) {
  const int64_t pixels = crop_height * crop_width;
  launch(preprocess_depth_kernel, blocks_for(pixels, kThreads), kThreads, 0, stream, frame, SourceMap(frame, params),
         pixels, static_cast<int>(crop_width), depth, y);
}

template void preprocess_image(Stream, const Frame&, const uint8_t*, const PreprocessParams&, int64_t, int64_t, float*);
template void preprocess_image(Stream, const Frame&, const uint8_t*, const PreprocessParams&, int64_t, int64_t, bf16*);

}  // namespace depthstill::cuda
