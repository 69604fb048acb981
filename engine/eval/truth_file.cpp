#include "engine/eval/truth_file.h"

#include <bit>
#include <cmath>
#include <span>
#include <vector>

#include "kernels/core/error.h"

namespace depthstill {

TruthReader::TruthReader(TruthFile kind, const std::string& path, const std::string& mask, const MapFormat& format,
                         ImageSize raw_size) {
  if (kind == TruthFile::kRawFloats) {
    raw_ = std::make_unique<OpenFile>(path);
    size_ = raw_size;
    const uint64_t bytes = sizeof(float) * static_cast<uint64_t>(size_.width) * static_cast<uint64_t>(size_.height);
    check(raw_->size() == bytes, path, ": expected ", bytes, " bytes, floats of ", size_, " (width x height), found ",
          raw_->size());
  } else {
    map_.emplace(path, format);
    size_ = map_->size();
  }
  if (mask.empty()) return;
  mask_.emplace(mask, MapFormat{.metres_per_unit = 1});
  check(mask_->size() == size_, mask, ": expected a mask of ", size_, " (width x height) like ", path, ", found ",
        mask_->size());
}

void TruthReader::read_rows(int first, int last, float* values) const {
  static_assert(std::endian::native == std::endian::little, "the file's byte order is this machine's");
  const size_t width = static_cast<size_t>(size_.width), count = static_cast<size_t>(last - first) * width;
  if (raw_) {
    raw_->read(sizeof(float) * static_cast<uint64_t>(first) * width,
               {reinterpret_cast<uint8_t*>(values), sizeof(float) * count});
    for (size_t i = 0; i < count; ++i) {
      if (!std::isfinite(values[i]) || values[i] < 0) values[i] = 0;
    }
  } else {
    map_->read_rows(first, last, values);
  }
  if (!mask_) return;
  std::vector<float> counts(count);
  mask_->read_rows(first, last, counts.data());
  for (size_t i = 0; i < count; ++i) {
    if (counts[i] == 0) values[i] = 0;
  }
}

DepthMap read_truth(const TruthReader& reader) {
  const ImageSize size = reader.size();
  DepthMap truth{size.width, size.height,
                 std::vector<float>(static_cast<size_t>(size.width) * static_cast<size_t>(size.height)), reader.kind()};
  reader.read_rows(0, size.height, truth.values.data());
  return truth;
}

}  // namespace depthstill
