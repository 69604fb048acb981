#include "engine/io/orientation.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace depthstill {
namespace {

constexpr int kOrientationTag = 0x0112, kShort = 3, kLong = 4;

// Reads numbers of either byte order within a TIFF block; what lies outside of it is 0.
class TiffBlock {
 public:
  explicit TiffBlock(std::span<const uint8_t> bytes) : bytes_(bytes), little_(!bytes.empty() && bytes[0] == 'I') {}

  uint32_t number(size_t at, size_t size) const {
    if (at > bytes_.size() || bytes_.size() - at < size) return 0;
    uint32_t value = 0;
    for (size_t i = 0; i < size; ++i) value = value << 8 | bytes_[little_ ? at + size - 1 - i : at + i];
    return value;
  }
  bool valid() const {
    return bytes_.size() >= 8 && bytes_[0] == bytes_[1] && (bytes_[0] == 'I' || bytes_[0] == 'M') && number(2, 2) == 42;
  }

 private:
  std::span<const uint8_t> bytes_;
  bool little_;
};

template <class T>
std::vector<T> turned(const std::vector<T>& stored, ImageSize size, Orientation orientation, ptrdiff_t channels) {
  const ptrdiff_t width = size.width, height = size.height;
  const ImageSize upright = upright_size(size, orientation);
  const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  // Steps through the stored picture along its rows and columns, and along those of the upright one.
  const ptrdiff_t along_row = from_right ? -1 : 1, along_column = from_bottom ? -width : width;
  const ptrdiff_t step_x = orientation >= 5 ? along_column : along_row;
  const ptrdiff_t step_y = orientation >= 5 ? along_row : along_column;
  const ptrdiff_t start = (from_bottom ? (height - 1) * width : 0) + (from_right ? width - 1 : 0);
  std::vector<T> result(stored.size());
  T* to = result.data();
  for (int y = 0; y < upright.height; ++y) {
    for (int x = 0; x < upright.width; ++x) {
      to = std::copy_n(stored.data() + (start + y * step_y + x * step_x) * channels, channels, to);
    }
  }
  return result;
}

}  // namespace

Orientation exif_orientation(std::span<const uint8_t> tiff) {
  const TiffBlock block(tiff);
  if (!block.valid()) return 1;
  const size_t directory = block.number(4, 4), entries = block.number(directory, 2);
  for (size_t i = 0; i < entries; ++i) {
    const size_t at = directory + 2 + 12 * i;
    if (block.number(at, 2) != kOrientationTag) continue;
    const uint32_t type = block.number(at + 2, 2);
    const uint32_t value = type == kShort ? block.number(at + 8, 2) : type == kLong ? block.number(at + 8, 4) : 0;
    return value >= 1 && value <= 8 ? static_cast<Orientation>(value) : 1;
  }
  return 1;
}

ImageSize upright_size(ImageSize stored, Orientation orientation) {
  return orientation >= 5 ? ImageSize{stored.height, stored.width} : stored;
}

Image8 upright(Image8 stored, Orientation orientation) {
  if (orientation == 1) return stored;
  const ImageSize size = upright_size(stored.size(), orientation);
  return {size.width, size.height, turned(stored.rgb, stored.size(), orientation, 3)};
}

Image16 upright(Image16 stored, Orientation orientation) {
  if (orientation == 1) return stored;
  const ImageSize size = upright_size(stored.size(), orientation);
  return {size.width, size.height, turned(stored.grey, stored.size(), orientation, 1)};
}

}  // namespace depthstill
