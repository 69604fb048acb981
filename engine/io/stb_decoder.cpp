// PNG and JPEG by stb_image. It gives something for pixels that are missing, and so all of them are looked for first.
#include <cstring>
#include <memory>

#include "engine/io/image_decoders.h"
#include "engine/io/jpeg_scan.h"
#include "engine/io/png_chunks.h"
#include "engine/io/png_data.h"
#include "engine/io/stb.h"
#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill::stb {
namespace {

static_assert(STBI_MAX_DIMENSIONS == kMaxImageSide);

struct StbFree {
  void operator()(void* pixels) const { stbi_image_free(pixels); }
};
template <class T>
using StbPixels = std::unique_ptr<T, StbFree>;

int length_of(std::span<const uint8_t> file, const std::string& name) {
  check(file.size() <= 0x7fffffff, name, ": expected an image file under 2 GiB, found ", file.size(), " bytes");
  return static_cast<int>(file.size());
}

template <class T>
void check_decoded(const StbPixels<T>& pixels, const ImageHeader& header, ImageSize size, const std::string& name) {
  check(pixels != nullptr, name, ": expected a ", header.kind, ", found damaged pixel data (",
        pixels ? "" : one_line(stbi_failure_reason()), ")");
  check(size == header.stored, name, ": expected ", header.stored, " pixels, found ", size);
}

void check_pixels(std::span<const uint8_t> file, const ImageHeader& header, const std::string& name) {
  if (header.format == ImageHeader::Format::kJpeg) {
    check_jpeg_scans(file, name);
  } else {
    check_png_data(file, header, name);
  }
}

// stb_image leaves the colours behind the end of a palette undefined: here they are black, as they are to libpng.
std::vector<uint8_t> with_whole_palette(std::span<const uint8_t> file) {
  constexpr size_t kWholeBytes = 3 * 256;
  size_t at = kPngSignature.size();
  while (std::memcmp(&file[at + 4], "PLTE", 4) != 0) at += 12 + size_t{big_endian32(&file[at])};
  const std::span<const uint8_t> begin = file.first(at + 8 + big_endian32(&file[at])),
                                 rest = file.subspan(begin.size());
  std::vector<uint8_t> whole(begin.begin(), begin.end());
  whole.resize(at + 8 + kWholeBytes);
  whole[at + 2] = kWholeBytes >> 8;
  whole[at + 3] = kWholeBytes & 0xff;
  whole.insert(whole.end(), rest.begin(), rest.end());
  return whole;
}

}  // namespace

std::string version() { return "stb_image"; }

Image8 decode_rgb(std::span<const uint8_t> file, const ImageHeader& header, const std::string& name) {
  check_pixels(file, header, name);
  constexpr size_t kColourType = 25, kPalette = 3;  // a byte of the PNG header
  std::vector<uint8_t> whole;
  if (header.format == ImageHeader::Format::kPng && file[kColourType] == kPalette)
    file = whole = with_whole_palette(file);
  ImageSize size;
  const StbPixels<stbi_uc> pixels(
      stbi_load_from_memory(file.data(), length_of(file, name), &size.width, &size.height, nullptr, 3));
  check_decoded(pixels, header, size, name);
  const size_t bytes = size_t{3} * static_cast<size_t>(size.width) * static_cast<size_t>(size.height);
  return {size.width, size.height, std::vector<uint8_t>(pixels.get(), pixels.get() + bytes)};
}

Image16 decode_grey16(std::span<const uint8_t> file, const ImageHeader& header, const std::string& name) {
  check_pixels(file, header, name);
  ImageSize size;
  const StbPixels<stbi_us> pixels(
      stbi_load_16_from_memory(file.data(), length_of(file, name), &size.width, &size.height, nullptr, 1));
  check_decoded(pixels, header, size, name);
  const size_t count = static_cast<size_t>(size.width) * static_cast<size_t>(size.height);
  return {size.width, size.height, std::vector<uint16_t>(pixels.get(), pixels.get() + count)};
}

}  // namespace depthstill::stb
