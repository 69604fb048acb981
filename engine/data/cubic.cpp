#include "engine/data/cubic.h"

#include <algorithm>
#include <array>
#include <cstddef>

#include "kernels/core/parallel.h"
#include "kernels/upsample_bicubic.h"

namespace depthstill {
namespace {

// Taps of every output, clamped to the image.
struct Taps {
  std::array<int, 4> index;
  std::array<float, 4> weight;
};

std::vector<Taps> make_taps(int from, int to) {
  const BicubicAxis axis(from, to, 0.0);
  std::vector<Taps> taps(static_cast<size_t>(to));
  for (int i = 0; i < to; ++i) {
    const BicubicAxis::Taps at = axis.taps(i);
    for (int k = 0; k < 4; ++k) {
      taps[static_cast<size_t>(i)].index[static_cast<size_t>(k)] = axis.clamp(at.first + k);
      taps[static_cast<size_t>(i)].weight[static_cast<size_t>(k)] = at.weight[k];
    }
  }
  return taps;
}

// (height, width, channels) of any element type to floats of `size`: rows first, one buffer of four rows per output
// row.
template <class T>
std::vector<float> resize_planes(const T* image, ImageSize from, ImageSize to, int channels) {
  const std::vector<Taps> rows = make_taps(from.height, to.height), columns = make_taps(from.width, to.width);
  const auto row_size = static_cast<size_t>(from.width) * static_cast<size_t>(channels);
  std::vector<float> result(static_cast<size_t>(to.height) * static_cast<size_t>(to.width) *
                            static_cast<size_t>(channels));
  parallel_ranges(to.height, 8, [&](int64_t begin, int64_t end, int) {
    std::vector<float> blended(row_size);
    for (int64_t y = begin; y < end; ++y) {
      const Taps& row = rows[static_cast<size_t>(y)];
      std::fill(blended.begin(), blended.end(), 0.0f);
      for (size_t k = 0; k < 4; ++k) {
        const T* source = image + static_cast<size_t>(row.index[k]) * row_size;
        for (size_t i = 0; i < row_size; ++i) blended[i] += row.weight[k] * static_cast<float>(source[i]);
      }
      float* out = &result[static_cast<size_t>(y) * columns.size() * static_cast<size_t>(channels)];
      for (const Taps& column : columns) {
        for (int c = 0; c < channels; ++c) {
          float sum = 0.0f;
          for (size_t k = 0; k < 4; ++k) {
            const size_t at = static_cast<size_t>(column.index[k]) * static_cast<size_t>(channels);
            sum += column.weight[k] * blended[at + static_cast<size_t>(c)];
          }
          *out++ = sum;
        }
      }
    }
  });
  return result;
}

}  // namespace

std::vector<float> resize_cubic(const Image8& image, ImageSize size) {
  return resize_planes(image.rgb.data(), image.size(), size, 3);
}

DepthMap resize_cubic(const DepthMap& depth, ImageSize size) {
  return {size.width, size.height, resize_planes(depth.values.data(), depth.size(), size, 1)};
}

}  // namespace depthstill
