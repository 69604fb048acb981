#include "tools/predictor.h"

#include <algorithm>
#include <cmath>

#include "engine/ops.h"
#include "kernels/preprocess.h"

namespace depthstill {
namespace {

// Normalised, (1, H, W, 3) on `device`.
Tensor image_tensor(const Image8& image, Device device, DType dtype) {
  const Tensor pixels = to_device(tensor<uint8_t>({image.height, image.width, 3}, image.rgb), device);
  const Frame frame{image.height, image.width, image.width};
  const PreprocessParams unchanged;
  Tensor y = empty({1, image.height, image.width, 3}, dtype, device);
  visit(dtype, [&]<class T>() {
    run(device, cpu::preprocess_image<T>, cuda::preprocess_image<T>)(frame, pixels, unchanged, int64_t{image.height},
                                                                     int64_t{image.width}, y);
  });
  return y;
}

int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

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

DepthMap resize_bilinear(const DepthMap& depth, ImageSize size) {
  if (depth.size() == size) return depth;
  struct Blend {
    size_t low, high;
    float weight;  // of high
  };
  const auto blends = [](int from, int to) {
    std::vector<Blend> result;
    for (int i = 0; i < to; ++i) {
      const double at = std::clamp((i + 0.5) * from / to - 0.5, 0.0, from - 1.0);
      const auto low = static_cast<size_t>(at);
      result.push_back(
          {low, std::min(low + 1, static_cast<size_t>(from - 1)), static_cast<float>(at - std::floor(at))});
    }
    return result;
  };
  const std::vector<Blend> rows = blends(depth.height, size.height), columns = blends(depth.width, size.width);
  DepthMap result{size.width, size.height, {}};
  result.metres.reserve(rows.size() * columns.size());
  const auto width = static_cast<size_t>(depth.width);
  for (const Blend& row : rows) {
    const float *upper = &depth.metres[row.low * width], *lower = &depth.metres[row.high * width];
    for (const Blend& column : columns) {
      const float top = upper[column.low] + column.weight * (upper[column.high] - upper[column.low]);
      const float bottom = lower[column.low] + column.weight * (lower[column.high] - lower[column.low]);
      result.metres.push_back(top + row.weight * (bottom - top));
    }
  }
  return result;
}

Predictor::Predictor(const Student& student, Device device, const PredictorOptions& options)
    : student_(student), device_(device), options_(options) {}

DepthMap Predictor::run(const Image8& input) const {
  const Image8 padded = pad_to_multiple(input, static_cast<int>(student_.size_multiple()));
  const NoGrad no_grad;
  const Tensor output = student_.forward(image_tensor(padded, device_, options_.precision));
  const StudentOptions& student = student_.options();
  const Tensor depth = student.head == Head::kDpm ? expected_depth(output, dpm_bins(student)) : output;
  const std::vector<float> values = to_vector<float>(to_device(depth, Device::kCpu));
  DepthMap map{input.width, input.height, {}};
  map.metres.reserve(static_cast<size_t>(input.width) * static_cast<size_t>(input.height));
  for (int y = 0; y < input.height; ++y) {
    const auto row = values.begin() + static_cast<std::ptrdiff_t>(y) * padded.width;
    map.metres.insert(map.metres.end(), row, row + input.width);
  }
  for (float& metres : map.metres) metres = std::clamp(metres, student.d_min, student.d_max);
  return map;
}

DepthMap Predictor::operator()(const Image8& image) const {
  const ImageSize size{std::max(1, static_cast<int>(std::lround(image.width * options_.scale_width))),
                       std::max(1, static_cast<int>(std::lround(image.height * options_.scale_height)))};
  const Image8 input = size == image.size() ? image : resize(image, size);
  DepthMap depth = run(input);
  if (options_.flip) {
    const DepthMap mirrored = run(mirror(input));
    const auto width = static_cast<size_t>(depth.width);
    for (size_t y = 0; y < static_cast<size_t>(depth.height); ++y) {
      for (size_t x = 0; x < width; ++x) {
        float& metres = depth.metres[y * width + x];
        metres = 0.5f * (metres + mirrored.metres[y * width + width - 1 - x]);
      }
    }
  }
  return resize_bilinear(depth, image.size());
}

}  // namespace depthstill
