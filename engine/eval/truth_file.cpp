#include "engine/eval/truth_file.h"

#include <bit>
#include <cmath>
#include <span>

#include "engine/io/open_file.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

DepthMap read_raw_floats(const std::string& path, ImageSize size) {
  static_assert(std::endian::native == std::endian::little, "the file's byte order is this machine's");
  const OpenFile file(path);
  DepthMap map{size.width, size.height,
               std::vector<float>(static_cast<size_t>(size.width) * static_cast<size_t>(size.height))};
  const uint64_t bytes = uint64_t{sizeof(float)} * map.values.size();
  check(file.size() == bytes, path, ": expected ", bytes, " bytes, floats of ", size, " (width x height), found ",
        file.size());
  file.read(0, {reinterpret_cast<uint8_t*>(map.values.data()), bytes});
  for (float& metres : map.values) {
    if (!std::isfinite(metres) || metres < 0) metres = 0;
  }
  return map;
}

}  // namespace

DepthMap read_truth(TruthFile kind, const std::string& path, const std::string& mask, const MapFormat& format,
                    ImageSize raw_size) {
  DepthMap truth = kind == TruthFile::kRawFloats ? read_raw_floats(path, raw_size) : read_map(path, format);
  if (mask.empty()) return truth;
  const DepthMap counts = read_map(mask, {.metres_per_unit = 1});
  check(counts.size() == truth.size(), mask, ": expected a mask of ", truth.size(), " (width x height) like ", path,
        ", found ", counts.size());
  for (size_t i = 0; i < truth.values.size(); ++i) {
    if (counts.values[i] == 0) truth.values[i] = 0;
  }
  return truth;
}

}  // namespace depthstill
