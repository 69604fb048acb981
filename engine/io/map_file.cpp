#include "engine/io/map_file.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "engine/io/npy.h"
#include "engine/io/pfm.h"
#include "kernels/error.h"

namespace depthstill {
namespace {

std::string extension_of(const std::string& path) {
  std::string extension = std::filesystem::path(path).extension().string();
  for (char& c : extension) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return extension;
}

double unit_of(const std::string& path, const MapFormat& format, bool integers) {
  const double unit = format.metres_per_unit;
  check(std::isfinite(unit) && unit >= 0, path, ": expected a depth scale > 0, found ", unit);
  check(unit > 0 || !integers, path, ": expected a stated depth scale (metres per unit) for a 16-bit PNG, found none");
  return unit > 0 ? unit : 1.0;
}

DepthMap read_npy_map(const std::string& path) {
  FloatArray array = read_npy(path);
  std::vector<int64_t> shape = array.shape;
  while (shape.size() > 2 && shape.front() == 1) shape.erase(shape.begin());
  while (shape.size() > 2 && shape.back() == 1) shape.pop_back();
  check(shape.size() == 2 && std::min(shape[0], shape[1]) >= 1 && std::max(shape[0], shape[1]) <= kMaxImageSide, path,
        ": expected an array (height, width) of 1 to ", kMaxImageSide, " a side, found ", array.shape.size(),
        " dimensions, ", array.values.size(), " values");
  return {static_cast<int>(shape[1]), static_cast<int>(shape[0]), std::move(array.values)};
}

void scale_and_check(const std::string& path, float scale, bool holes_allowed, DepthMap& depth) {
  for (size_t i = 0; i < depth.values.size(); ++i) {
    const float metres = depth.values[i] * scale;
    const bool usable = std::isfinite(metres) && metres >= 0;
    check(usable || holes_allowed, path, ": expected finite depths >= 0, found ", metres, " at row ",
          i / static_cast<size_t>(depth.width), ", column ", i % static_cast<size_t>(depth.width));
    depth.values[i] = usable ? metres : 0.0f;
  }
}

Image16 to_units(const DepthMap& depth, double unit) {
  Image16 image{depth.width, depth.height, std::vector<uint16_t>(depth.values.size())};
  for (size_t i = 0; i < depth.values.size(); ++i) {
    const double units = std::round(static_cast<double>(depth.values[i]) / unit);
    image.grey[i] = units > 0 ? static_cast<uint16_t>(std::min(units, 65535.0)) : uint16_t{0};  // NaN: 0
  }
  return image;
}

}  // namespace

DepthMap read_map(const std::string& path, const MapFormat& format) {
  const std::string extension = extension_of(path);
  DepthMap depth;
  if (extension == ".png") {
    const double unit = unit_of(path, format, true);
    const Image16 image = read_png16(path);
    depth = {image.width, image.height, std::vector<float>(image.grey.size())};
    for (size_t i = 0; i < image.grey.size(); ++i) depth.values[i] = static_cast<float>(image.grey[i] * unit);
    return depth;
  }
  const double unit = unit_of(path, format, false);
  if (extension == ".npy") {
    depth = read_npy_map(path);
  } else if (extension == ".pfm") {
    FloatMap map = read_pfm(path);
    depth = {map.width, map.height, std::move(map.values)};
  } else {
    fail(path, ": expected a depth map .png, .npy or .pfm, found '", extension, "'");
  }
  scale_and_check(path, static_cast<float>(unit), format.holes_allowed, depth);
  return depth;
}

void write_map(const std::string& path, const DepthMap& depth, const MapFormat& format) {
  check(depth.width > 0 && depth.height > 0 &&
            depth.values.size() == static_cast<size_t>(depth.width) * static_cast<size_t>(depth.height),
        path, ": expected ", depth.size(), " depths, got ", depth.values.size());
  const std::string extension = extension_of(path);
  if (extension == ".png") return write_png(path, to_units(depth, unit_of(path, format, true)));
  check(extension == ".npy" || extension == ".pfm", path, ": expected a depth map .png, .npy or .pfm, found '",
        extension, "'");
  std::vector<float> values = depth.values;
  const auto per_metre = static_cast<float>(1.0 / unit_of(path, format, false));
  for (float& value : values) value *= per_metre;
  if (extension == ".npy") {
    const int64_t shape[] = {depth.height, depth.width};
    write_npy(path, shape, values);
  } else {
    write_pfm(path, depth.width, depth.height, values);
  }
}

}  // namespace depthstill
