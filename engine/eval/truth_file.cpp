#include "engine/eval/truth_file.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <span>
#include <vector>

#include "engine/io/png_text.h"
#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

// A text of a PNG that is a number > 0.
double positive_text(std::span<const uint8_t> png, const std::string& path, const char* keyword) {
  const std::optional<std::string> text = find_png_text(png, keyword);
  check(text.has_value(), path, ": expected the text '", keyword, "' of MoGe's depth maps, found none");
  double number = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
  check(error == std::errc{} && end == text->data() + text->size() && std::isfinite(number) && number > 0, path,
        ": expected a number > 0 as the text '", keyword, "', found '", printable(*text), "'");
  return number;
}

}  // namespace

DepthMap read_log_png(const std::string& path) {
  const std::vector<uint8_t> file = read_bytes(path);
  const Image16 image = decode_png16(file, path);
  const double near = std::log(positive_text(file, path, "near")), far = std::log(positive_text(file, path, "far"));
  const double unit = find_png_text(file, "unit") ? positive_text(file, path, "unit") : 1;
  std::vector<float> depths(65536, 0.0f);
  for (int v = 1; v < 65535; ++v) {
    const float q = static_cast<float>(v - 1) / 65533.0f;  // as NumPy computes it
    depths[static_cast<size_t>(v)] =
        static_cast<float>(unit * std::exp(near * static_cast<double>(1 - q) + far * static_cast<double>(q)));
  }
  DepthMap map{image.width, image.height, std::vector<float>(image.grey.size())};
  std::transform(image.grey.begin(), image.grey.end(), map.values.begin(), [&](uint16_t v) { return depths[v]; });
  return map;
}

TruthReader::TruthReader(TruthFile kind, const std::string& path, const std::string& mask, const MapFormat& format,
                         ImageSize raw_size) {
  if (kind == TruthFile::kRawFloats) {
    raw_ = std::make_unique<OpenFile>(path);
    size_ = raw_size;
    const uint64_t bytes = sizeof(float) * static_cast<uint64_t>(size_.width) * static_cast<uint64_t>(size_.height);
    check(raw_->size() == bytes, path, ": expected ", bytes, " bytes, floats of ", size_, " (width x height), found ",
          raw_->size());
  } else if (kind == TruthFile::kLogPng) {
    decoded_ = read_log_png(path);
    size_ = decoded_->size();
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
  } else if (decoded_) {
    std::copy_n(&decoded_->values[static_cast<size_t>(first) * width], count, values);
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
