// PNG and JPEG pictures by every decoder there is, and PNG depth maps.
#include "engine/io/image.h"

#include <zlib.h>

#include <algorithm>

#include "engine/io/image_header.h"
#include "engine/io/map_file.h"
#include "tests/fuzz/target.h"
#include "tests/io/test_images.h"

namespace depthstill::fuzz {
namespace {

constexpr int64_t kMostPixels = 1 << 14;  // more take longer and show nothing else

Image8 decode(Input input, const ImageHeader& header, bool libraries) {
  image_options().libraries = libraries;
  Image8 image = decode_image(input, "image");
  expect(image.size() == header.size, "expected a picture of ", header.size, ", found ", image.size());
  const size_t bytes = size_t{3} * static_cast<size_t>(image.width) * static_cast<size_t>(image.height);
  expect(image.rgb.size() == bytes, "expected ", bytes, " bytes of pixels, found ", image.rgb.size());
  return image;
}

void read_depth(Input input, ImageSize size) {
  static const InputFile file("map.png");
  file.write(input);
  const DepthMap map = read_map(file.path(), {1.0 / 256, MapFormat::Unusable::kHole});
  expect(map.size() == size, "expected a map of ", size, ", found ", map.size());
  expect(std::all_of(map.values.begin(), map.values.end(), [](float value) { return value >= 0; }), "a depth below 0");
}

// Each decoder may refuse damage that another does not see; where both read a PNG, pixels are the same.
void read(Input input) {
  image_options().max_pixels = kMostPixels;
  const ImageHeader header = check_image_file(input, "image");
  const bool png = header.format == ImageHeader::Format::kPng;
  Image8 pictures[2];
  std::string refusals[2];
  for (const bool libraries : {false, true}) {
    refusals[libraries] = message_of([&] { pictures[libraries] = decode(input, header, libraries); });
  }
  if (png && refusals[0].empty() && refusals[1].empty()) {
    expect(pictures[0].rgb == pictures[1].rgb, "other pixels by another decoder");
  }
  if (png && header.bits == 16 && header.grey) read_depth(input, header.size);
  if (!refusals[1].empty()) fail(refusals[1]);
}

// Sets the Adler-32 of the rows of a PNG with one IDAT chunk.
void repair_rows(Bytes& file) {
  constexpr uint8_t kType[] = {'I', 'D', 'A', 'T'};
  const auto type = std::search(file.begin(), file.end(), std::begin(kType), std::end(kType));
  if (type == file.end()) return;
  const auto data = static_cast<size_t>(type - file.begin()) + 4;
  if (file.size() < data + 2) return;
  Bytes rows(size_t{1} << 16);
  z_stream stream{};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) return;
  stream.next_in = &file[data] + 2;
  stream.avail_in = static_cast<uInt>(file.size() - data - 2);
  stream.next_out = rows.data();
  stream.avail_out = static_cast<uInt>(rows.size());
  const bool whole = inflate(&stream, Z_FINISH) == Z_STREAM_END && stream.avail_in >= 4;
  const size_t end = file.size() - stream.avail_in;
  inflateEnd(&stream);
  if (!whole) return;
  const uLong sum = adler32(1, rows.data(), static_cast<uInt>(rows.size() - stream.avail_out));
  for (size_t i = 0; i < 4; ++i) file[end + i] = static_cast<uint8_t>(sum >> (24 - 8 * i));
}

void repair(Bytes& input) {
  if (input.size() < 8 || input[0] != 0x89) return;
  repair_rows(input);
  input = testing_files::with_checksums(std::move(input));
}

}  // namespace

Target image_target() {
  using namespace std::string_view_literals;
  return {"image",
          read,
          {"IHDR"sv,
           "PLTE"sv,
           "IDAT"sv,
           "IEND"sv,
           "tRNS"sv,
           "eXIf"sv,
           "tEXt"sv,
           "iCCP"sv,
           "gAMA"sv,
           "sBIT"sv,
           "acTL"sv,
           "\0\0\0\0IEND\xae\x42\x60\x82"sv,
           "\0\0\0\x0dIHDR"sv,
           "\0\0\0\0IDAT"sv,
           "\0\0\0\x03PLTE\1\2\3\0\0\0\0"sv,
           "Exif\0\0II*\0"sv,
           "MM\0*\0\0\0\x08"sv,
           "\x12\x01\x03\0\x01\0\0\0\x06\0"sv,
           "\xff\xd8"sv,
           "\xff\xd9"sv,
           "\xff\xc0\0\x0b\x08"sv,
           "\xff\xc2\0\x11\x08"sv,
           "\xff\xc4"sv,
           "\xff\xdb"sv,
           "\xff\xda\0\x08\1\1\0\0\x3f\0"sv,
           "\xff\xdd\0\4\0\1"sv,
           "\xff\xe1"sv,
           "\xff\xd0"sv,
           "\xff\xd1"sv,
           "\xff\xd7"sv,
           "\xff\xee\0\x0e"
           "Adobe\0\x64\0\0\0\0\2"sv,
           "\xff\0"sv,
           "\xff\xff"sv,
           "depth in metres, unit "sv},
          repair};
}

}  // namespace depthstill::fuzz
