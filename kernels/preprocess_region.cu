#include "kernels/core/launch.h"
#include "kernels/preprocess_region.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;

// One thread per output pixel: reads 16 x 3 bytes, which neighbours share in L1, writes 3 values. Bound: the caches;
// with colour, three powf.
template <class T>
__global__ void __launch_bounds__(kThreads)
    preprocess_region_kernel(Frame frame, RegionParams params, BicubicAxis axis, int size,
                             const uint8_t* __restrict__ image, T* __restrict__ y) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= static_cast<int64_t>(size) * size) return;
  const BicubicAxis::Taps rows = axis.taps(params.row + static_cast<int>(i / size));
  const BicubicAxis::Taps columns = axis.taps(params.column + static_cast<int>(i % size));
  float rgb[3] = {0.0f, 0.0f, 0.0f};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int64_t row = params.top + axis.clamp(rows.first + j);
    float of_row[3] = {0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int column = params.frame_column(axis.clamp(columns.first + k));
      const uint8_t* pixel = image + 3 * (row * frame.row_stride + column);
#pragma unroll
      for (int channel = 0; channel < 3; ++channel) {
        of_row[channel] += columns.weight[k] * static_cast<float>(pixel[channel]);
      }
    }
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) rgb[channel] += rows.weight[j] * of_row[channel];
  }
#pragma unroll
  for (int channel = 0; channel < 3; ++channel) {
    y[3 * i + channel] = static_cast<T>(params.normalised(rgb[channel], channel));
  }
}

}  // namespace

template <class T>
void preprocess_region(Stream stream, const Frame& frame, const uint8_t* image, const RegionParams& params,
                       int64_t size, T* y) {
  launch(preprocess_region_kernel<T>, blocks_for(size * size, kThreads), kThreads, 0, stream, frame, params,
         params.axis(), static_cast<int>(size), image, y);
}

template void preprocess_region(Stream, const Frame&, const uint8_t*, const RegionParams&, int64_t, float*);
template void preprocess_region(Stream, const Frame&, const uint8_t*, const RegionParams&, int64_t, bf16*);

}  // namespace depthstill::cuda
