#include "kernels/preprocess_region.h"

#include <algorithm>
#include <vector>

#include "kernels/core/parallel.h"

namespace depthstill::cpu {

// A row at a time: four rows of the frame become one, of which four pixels become one.
template <class T>
void preprocess_region(Stream stream, const Frame& frame, const uint8_t* image, const RegionParams& params,
                       int64_t size, T* y) {
  const BicubicAxis axis = params.axis();
  std::vector<BicubicAxis::Taps> columns;
  for (int64_t c = 0; c < size; ++c) columns.push_back(axis.taps(params.column + static_cast<int>(c)));
  const int64_t width = 3 * static_cast<int64_t>(params.side);
  auto* rows = static_cast<float*>(stream.scratch->get(static_cast<size_t>(num_threads() * width) * sizeof(float)));
  parallel_ranges(size, 8, [&](int64_t begin, int64_t end, int part) {
    float* row = rows + part * width;
    for (int64_t r = begin; r < end; ++r) {
      const BicubicAxis::Taps taps = axis.taps(params.row + static_cast<int>(r));
      std::fill_n(row, width, 0.0f);
      for (int k = 0; k < 4; ++k) {
        const int64_t from_row = params.top + axis.clamp(taps.first + k);
        const uint8_t* from = image + 3 * (from_row * frame.row_stride + params.left);
        const float weight = taps.weight[k];
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) row[i] += weight * static_cast<float>(from[i]);
      }
      for (int64_t c = 0; c < size; ++c) {
        const BicubicAxis::Taps& at = columns[static_cast<size_t>(c)];
        float rgb[3] = {0.0f, 0.0f, 0.0f};
        for (int k = 0; k < 4; ++k) {
          const float* from = row + 3 * (params.frame_column(axis.clamp(at.first + k)) - params.left);
          for (int channel = 0; channel < 3; ++channel) rgb[channel] += at.weight[k] * from[channel];
        }
        T* to = y + 3 * (r * size + c);
        for (int channel = 0; channel < 3; ++channel)
          to[channel] = static_cast<T>(params.normalised(rgb[channel], channel));
      }
    }
  });
}

template void preprocess_region(Stream, const Frame&, const uint8_t*, const RegionParams&, int64_t, float*);
template void preprocess_region(Stream, const Frame&, const uint8_t*, const RegionParams&, int64_t, bf16*);

}  // namespace depthstill::cpu
