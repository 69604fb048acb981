#include "tools/report/colormap.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/error.h"

namespace depthstill {
namespace {

// Coefficients of 1, x, x^2, ... per channel.
using Polynomial = std::array<std::array<double, 7>, 3>;
constexpr Polynomial kTurboCoefficients{{
    {0.13572138, 4.61539260, -42.66032258, 132.13108234, -152.94239396, 59.28637943, 0},
    {0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604, 0},
    {0.10667330, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973, 0},
}};
constexpr Polynomial kMagmaCoefficients{{
    {-0.002136485, 0.251660541, 8.353717279, -27.668733086, 52.176139812, -50.768525365, 18.655705066},
    {-0.000749655, 0.677523244, -3.577719515, 14.264730781, -27.943606072, 29.046582821, -11.489773520},
    {-0.005386128, 2.494026599, 0.314467903, -13.649213188, 12.944169442, 4.234152994, -5.601961509},
}};

int shrink_factor(int width, int max_width) { return std::max(1, (width + max_width - 1) / max_width); }

}  // namespace

Colormap parse_colormap(const std::string& text) {
  if (text == "turbo") return Colormap::kTurbo;
  if (text == "magma") return Colormap::kMagma;
  check(text == "grey", "colormap: expected turbo, magma or grey, got '", text, "'");
  return Colormap::kGrey;
}

std::array<uint8_t, 3> colour_at(Colormap map, double position) {
  const double x = std::clamp(position, 0.0, 1.0);
  std::array<uint8_t, 3> colour{};
  for (size_t channel = 0; channel < 3; ++channel) {
    double value = x;
    if (map != Colormap::kGrey) {
      const auto& c = (map == Colormap::kTurbo ? kTurboCoefficients : kMagmaCoefficients)[channel];
      value = 0;
      for (size_t i = c.size(); i-- > 0;) value = value * x + c[i];
    }
    colour[channel] = static_cast<uint8_t>(std::lround(255 * std::clamp(value, 0.0, 1.0)));
  }
  return colour;
}

double ColourRange::position(double depth) const {
  if (logarithmic) return std::log(far / std::max(depth, 1e-6)) / std::log(far / near);
  return (far - depth) / (far - near);
}

ColourRange colour_range(const DepthMap& depth) {
  std::vector<float> known;
  known.reserve(depth.values.size());
  std::copy_if(depth.values.begin(), depth.values.end(), std::back_inserter(known),
               [](float d) { return d > 0 && std::isfinite(d); });
  if (known.empty()) return {1, 10};
  const auto percentile = [&](size_t percent) {
    const auto at = known.begin() + static_cast<std::ptrdiff_t>((known.size() - 1) * percent / 100);
    std::nth_element(known.begin(), at, known.end());
    return static_cast<double>(*at);
  };
  const double near = std::max(percentile(2), 1e-3);
  return {near, std::max(percentile(98), 1.1 * near)};
}

Image8 colour_depth(const DepthMap& depth, Colormap map, const ColourRange& range) {
  Image8 image{depth.width, depth.height, {}};
  image.rgb.reserve(3 * depth.values.size());
  for (const float d : depth.values) {
    const std::array<uint8_t, 3> colour =
        d > 0 ? colour_at(map, range.position(static_cast<double>(d))) : std::array<uint8_t, 3>{128, 128, 128};
    image.rgb.insert(image.rgb.end(), colour.begin(), colour.end());
  }
  return image;
}

DepthMap shrink(const DepthMap& depth, int max_width) {
  const int factor = shrink_factor(depth.width, max_width);
  DepthMap result{depth.width / factor, depth.height / factor, {}};
  for (int y = 0; y < result.height; ++y) {
    for (int x = 0; x < result.width; ++x) {
      const auto row = static_cast<size_t>(y) * static_cast<size_t>(factor);
      result.values.push_back(depth.values[row * static_cast<size_t>(depth.width) + static_cast<size_t>(x * factor)]);
    }
  }
  return result;
}

Image8 shrink(const Image8& image, int max_width) {
  const int factor = shrink_factor(image.width, max_width);
  Image8 result{image.width / factor, image.height / factor, {}};
  for (int y = 0; y < result.height; ++y) {
    for (int x = 0; x < result.width; ++x) {
      const size_t at =
          3 * (static_cast<size_t>(y * factor) * static_cast<size_t>(image.width) + static_cast<size_t>(x * factor));
      result.rgb.insert(result.rgb.end(), {image.rgb[at], image.rgb[at + 1], image.rgb[at + 2]});
    }
  }
  return result;
}

}  // namespace depthstill
