#include "engine/data/pixels.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "kernels/core/error.h"

namespace depthstill {
namespace {

template <class T>
std::vector<T> crop_pixels(const std::vector<T>& pixels, ImageSize size, int channels, const Rect& rect) {
  check(rect.left >= 0 && rect.top >= 0 && rect.width >= 1 && rect.height >= 1 &&
            rect.left + rect.width <= size.width && rect.top + rect.height <= size.height,
        "crop: expected a rectangle inside ", size, ", got ", rect.size(), " at (", rect.left, ", ", rect.top, ")");
  const size_t row = static_cast<size_t>(rect.width) * static_cast<size_t>(channels);
  std::vector<T> out(row * static_cast<size_t>(rect.height));
  for (int y = 0; y < rect.height; ++y) {
    const auto from = static_cast<std::ptrdiff_t>((rect.top + y) * size.width + rect.left) * channels;
    std::copy_n(pixels.begin() + from, row, out.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(y) * row));
  }
  return out;
}

// Taps say how one output coordinate is made of input coordinates [first, first + weights.size()).
struct Taps {
  int first = 0;
  std::vector<float> weights;  // sum 1
};

Taps area_taps(int i, double step, int from) {
  const double begin = i * step, end = std::min((i + 1) * step, static_cast<double>(from));
  Taps taps{static_cast<int>(begin), {}};
  for (int j = taps.first; j < end && j < from; ++j) {
    taps.weights.push_back(static_cast<float>((std::min(j + 1.0, end) - std::max<double>(j, begin)) / (end - begin)));
  }
  return taps;
}

Taps linear_taps(int i, double step, int from) {
  const double at = std::clamp((i + 0.5) * step - 0.5, 0.0, from - 1.0);
  const int first = std::min(static_cast<int>(at), std::max(from - 2, 0));
  const auto second = static_cast<float>(at - first);
  return from == 1 ? Taps{0, {1.0f}} : Taps{first, {1.0f - second, second}};
}

std::vector<Taps> taps_of(int from, int to) {
  const double step = static_cast<double>(from) / to;
  std::vector<Taps> taps;
  for (int i = 0; i < to; ++i) taps.push_back(step > 1 ? area_taps(i, step, from) : linear_taps(i, step, from));
  return taps;
}

// Resizes one image row to `taps.size()` pixels.
void resize_row(const uint8_t* row, const std::vector<Taps>& taps, float* out) {
  for (const Taps& tap : taps) {
    float sum[3] = {0, 0, 0};
    const uint8_t* pixel = row + 3 * static_cast<ptrdiff_t>(tap.first);
    for (const float weight : tap.weights) {
      for (int c = 0; c < 3; ++c) sum[c] += weight * static_cast<float>(*pixel++);
    }
    out = std::copy_n(sum, 3, out);
  }
}

void check_target(ImageSize size) {
  check(size.width >= 1 && size.height >= 1 && size.width <= kMaxImageSide && size.height <= kMaxImageSide,
        "resize: expected 1 to ", kMaxImageSide, " pixels a side, got ", size);
}

int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

Image8 crop(const Image8& image, const Rect& rect) {
  return {rect.width, rect.height, crop_pixels(image.rgb, image.size(), 3, rect)};
}

DepthMap crop(const DepthMap& depth, const Rect& rect) {
  return {rect.width, rect.height, crop_pixels(depth.values, depth.size(), 1, rect), depth.kind};
}

Image8 resize(const Image8& image, ImageSize size) {
  check_target(size);
  if (size == image.size()) return image;
  const std::vector<Taps> columns = taps_of(image.width, size.width), rows = taps_of(image.height, size.height);
  const auto in_row = size_t{3} * static_cast<size_t>(image.width), row = size_t{3} * static_cast<size_t>(size.width);
  std::vector<float> narrow(row * static_cast<size_t>(image.height));
  for (size_t y = 0; y < static_cast<size_t>(image.height); ++y) {
    resize_row(&image.rgb[y * in_row], columns, &narrow[y * row]);
  }
  Image8 out{size.width, size.height, std::vector<uint8_t>(row * static_cast<size_t>(size.height))};
  std::vector<float> sum(row);
  for (size_t y = 0; y < rows.size(); ++y) {
    std::fill(sum.begin(), sum.end(), 0.0f);
    const float* from = &narrow[static_cast<size_t>(rows[y].first) * row];
    for (const float weight : rows[y].weights) {
      for (size_t x = 0; x < row; ++x) sum[x] += weight * *from++;
    }
    for (size_t x = 0; x < row; ++x) {
      out.rgb[y * row + x] = static_cast<uint8_t>(std::clamp(sum[x] + 0.5f, 0.0f, 255.0f));
    }
  }
  return out;
}

DepthMap resize(const DepthMap& depth, ImageSize size) {
  check_target(size);
  if (size == depth.size()) return depth;
  const auto nearest = [](int i, int from, int to) {  // the input pixel that holds the output pixel's centre
    return static_cast<size_t>((int64_t{2} * i + 1) * from / (int64_t{2} * to));
  };
  DepthMap out{size.width, size.height, {}, depth.kind};
  out.values.reserve(static_cast<size_t>(size.width) * static_cast<size_t>(size.height));
  for (int y = 0; y < size.height; ++y) {
    const float* row = &depth.values[nearest(y, depth.height, size.height) * static_cast<size_t>(depth.width)];
    for (int x = 0; x < size.width; ++x) out.values.push_back(row[nearest(x, depth.width, size.width)]);
  }
  return out;
}

Image8 pad_to_multiple(const Image8& image, int multiple) {
  const int height = round_up(image.height, multiple), width = round_up(image.width, multiple);
  if (height == image.height && width == image.width) return image;
  Image8 padded{width, height, {}};
  padded.rgb.reserve(3 * static_cast<size_t>(height) * static_cast<size_t>(width));
  for (int y = 0; y < height; ++y) {
    const size_t row = static_cast<size_t>(std::min(y, image.height - 1)) * static_cast<size_t>(image.width);
    for (int x = 0; x < width; ++x) {
      const uint8_t* const pixel = &image.rgb[3 * (row + static_cast<size_t>(std::min(x, image.width - 1)))];
      padded.rgb.insert(padded.rgb.end(), pixel, pixel + 3);
    }
  }
  return padded;
}

Image8 mirror(const Image8& image) {
  Image8 mirrored = image;
  const auto width = static_cast<size_t>(image.width);
  for (size_t y = 0; y < static_cast<size_t>(image.height); ++y) {
    for (size_t x = 0; x < width; ++x) {
      std::copy_n(&image.rgb[3 * (y * width + x)], 3, &mirrored.rgb[3 * (y * width + width - 1 - x)]);
    }
  }
  return mirrored;
}

DepthMap resize_bilinear(const DepthMap& depth, ImageSize size, bool align_corners) {
  if (depth.size() == size) return depth;
  struct Blend {
    size_t low, high;
    float weight;  // weight of `high`
  };
  const auto blends = [align_corners](int from, int to) {
    std::vector<Blend> result;
    for (int i = 0; i < to; ++i) {
      const double at = align_corners ? static_cast<double>(i) * (from - 1) / std::max(to - 1, 1)
                                      : std::clamp((i + 0.5) * from / to - 0.5, 0.0, from - 1.0);
      const auto low = static_cast<size_t>(at);
      result.push_back(
          {low, std::min(low + 1, static_cast<size_t>(from - 1)), static_cast<float>(at - std::floor(at))});
    }
    return result;
  };
  const std::vector<Blend> rows = blends(depth.height, size.height), columns = blends(depth.width, size.width);
  DepthMap result{size.width, size.height, {}, depth.kind};
  result.values.reserve(rows.size() * columns.size());
  const auto width = static_cast<size_t>(depth.width);
  for (const Blend& row : rows) {
    const float *upper = &depth.values[row.low * width], *lower = &depth.values[row.high * width];
    for (const Blend& column : columns) {
      const float top = upper[column.low] + column.weight * (upper[column.high] - upper[column.low]);
      const float bottom = lower[column.low] + column.weight * (lower[column.high] - lower[column.low]);
      result.values.push_back(top + row.weight * (bottom - top));
    }
  }
  return result;
}

}  // namespace depthstill
