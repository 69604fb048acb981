#include "engine/io/image_header.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "tests/io/allocation_watch.h"
#include "tests/io/test_files.h"
#include "tests/io/test_images.h"

namespace depthstill {
namespace {

using namespace testing_files;
using Bytes = std::vector<uint8_t>;

constexpr uint8_t kQuantisation = 0xdb, kFrame = 0xc0, kHuffman = 0xc4, kScan = 0xda;

// The first byte behind marker and length of the file's nth segment of this kind.
size_t contents_of(const Bytes& file, uint8_t marker, int n = 0) {
  for (size_t at = 2; at + 4 <= file.size();) {
    if (file[at + 1] == marker && n-- == 0) return at + 4;
    at += 2 + static_cast<size_t>(file[at + 2] << 8 | file[at + 3]);
  }
  ADD_FAILURE() << "no segment " << int{marker};
  return 0;
}

Bytes without(const Bytes& file, uint8_t marker) {
  const size_t begin = contents_of(file, marker) - 4;
  const size_t length = 2 + static_cast<size_t>(file[begin + 2] << 8 | file[begin + 3]);
  Bytes result(file.begin(), file.begin() + static_cast<ptrdiff_t>(begin));
  result.insert(result.end(), file.begin() + static_cast<ptrdiff_t>(begin + length), file.end());
  return result;
}

Bytes changed(Bytes file, size_t at, std::initializer_list<int> values) {
  for (const int value : values) file.at(at++) = static_cast<uint8_t>(value);
  return file;
}

size_t scan_begin(const Bytes& file) {
  const size_t at = contents_of(file, kScan);
  return at - 2 + static_cast<size_t>(file[at - 2] << 8 | file[at - 1]);
}

void expect_refused(const Bytes& file, const std::string& text) {
  for (const auto& read : {std::function<void()>([&] { check_image_file(file, "list:1: a"); }),
                           std::function<void()>([&] { decode_image(file, "list:1: a"); })}) {
    const std::string message = error_of(read);
    expect_clear(message, "list:1: a: ");
    expect_clear(message, text);
  }
}

TEST(image_header, a_jpeg_scan_uses_tables_that_were_defined_before_it) {
  const Bytes file = encode_jpeg(picture(33, 17), 80);
  expect_refused(without(file, kHuffman), "found none for DC Huffman table 0");
  expect_refused(without(file, kQuantisation), "found none for quantisation table 0");
  const size_t scan = contents_of(file, kScan);
  for (size_t part = 0; part < 3; ++part) {
    expect_refused(changed(file, scan + 2 + 2 * part, {0x20}), "found none for DC Huffman table 2");
    expect_refused(changed(file, scan + 2 + 2 * part, {0x0f}), "found none for AC Huffman table 15");
    expect_refused(changed(file, contents_of(file, kFrame) + 8 + 3 * part, {2}), "found none for quantisation table 2");
  }
  // The tables of a file before it do not help the next one.
  decode_image(file, "m");
  expect_refused(without(file, kHuffman), "found none for DC Huffman table 0");
}

TEST(image_header, bad_jpeg_tables_are_refused) {
  const Bytes file = encode_jpeg(picture(33, 17), 80);
  const size_t huffman = contents_of(file, kHuffman), quantisation = contents_of(file, kQuantisation);
  expect_refused(changed(file, huffman, {0x04}), "found table 4 of class 0");
  expect_refused(changed(file, huffman, {0x20}), "found table 0 of class 2");
  expect_refused(changed(file, huffman + 1, {2}), "found too many of 1 bits");
  expect_refused(changed(file, huffman + 1, {0, 0, 0, 0, 0, 0, 0, 0, 255, 200, 0, 0, 0, 0, 0, 0}), "found 455");
  expect_refused(changed(file, huffman + 17, {16}), "found a Huffman table with 16");
  expect_refused(changed(file, quantisation, {0x04}), "found table 4 of 8");
  expect_refused(changed(file, quantisation, {0x20}), "found table 0 of 24");
  expect_refused(changed(file, quantisation, {0x10}), "JPEG quantisation table");
  expect_refused(changed(file, quantisation + 1, {0}), "steps of at least 1, found 0");
}

TEST(image_header, bad_jpeg_frames_and_scans_are_refused) {
  const Bytes file = encode_jpeg(picture(33, 17), 80);
  const size_t frame = contents_of(file, kFrame), scan = contents_of(file, kScan);
  expect_refused(changed(file, frame - 3, {0xc9}), "found coding SOF9");
  expect_refused(changed(file, frame - 3, {0xc3}), "found coding SOF3");
  expect_refused(changed(file, frame, {12}), "expected a JPEG of 8 bits, found 12");
  expect_refused(changed(file, frame + 5, {2}), "found 2");
  expect_refused(changed(file, frame + 7, {0x52}), "found 5x2");
  expect_refused(changed(file, frame + 7, {0x32, 0, 2, 0x21}), "that divide the greatest, found 2x1 below 3x2");
  expect_refused(changed(file, frame + 7, {0x44}), "at most 10 blocks");
  expect_refused(changed(file, scan + 1, {9}), "found component 9");
  expect_refused(changed(file, scan + 1, {2}), "found 2 twice");
  expect_refused(changed(file, scan + 7, {1}), "expected a whole scan of a baseline JPEG");
  expect_refused(changed(file, frame - 3, {0xc2}), "expected a scan of a progressive JPEG");
}

TEST(image_header, a_jpeg_scan_that_ends_before_its_pixels_is_refused) {
  const int height = 61;
  const Bytes file = encode_jpeg(picture(40, height), 80);
  const size_t begin = scan_begin(file);
  for (size_t end = begin; end + 3 < file.size(); ++end) {  // the last byte may be padding alone
    if (file[end - 1] == 0xff) continue;
    Bytes cut(file.begin(), file.begin() + static_cast<ptrdiff_t>(end));
    cut.insert(cut.end(), {0xff, 0xd9});
    expect_clear(error_of([&] { decode_image(cut, "list:1: a"); }), "list:1: a: expected ");
    if (end == begin + 2 * (file.size() - begin) / 3) {
      expect_clear(error_of([&] { decode_image(cut, "m"); }), concat_text(" of ", height));
    }
  }
}

TEST(image_header, sizes_follow_from_the_bytes_of_the_file) {
  Bytes jpeg = encode_jpeg(picture(40, 24), 80);
  jpeg = changed(jpeg, contents_of(jpeg, kFrame) + 1, {0x2c, 0, 0x2c, 0});  // 11264 x 11264
  Bytes png = encode_png(picture(40, 24));
  for (size_t i = 16; i < 24; ++i) png[i] = i % 4 == 2 ? 0x2c : 0;
  png = with_checksums(png);
  const AllocationWatch watch;
  expect_refused(jpeg, "end");
  expect_refused(png, "they end before the pixels do");
  EXPECT_LT(watch.peak_bytes(), size_t{1} << 20);
}

TEST(image_header, a_flat_picture_has_all_its_bytes) {
  const int side = 600;  // its files are about as small as a whole picture's can be
  const Image8 black{side, side, std::vector<uint8_t>(size_t{3} * side * side)};
  EXPECT_EQ(decode_image(encode_png(black, 9), "m").rgb, black.rgb);
  EXPECT_EQ(decode_image(encode_jpeg(black), "m").size(), black.size());
}

TEST(image_header, an_option_limits_the_pixels) {
  const Image8 image = picture(40, 24);
  const ImageOptions before = image_options();
  image_options().max_pixels = 40 * 24;
  EXPECT_EQ(decode_image(encode_png(image), "m").rgb, image.rgb);
  image_options().max_pixels -= 1;
  expect_refused(encode_png(image), "at most 959 pixels (--max-pixels and DEPTHSTILL_MAX_PIXELS");
  expect_refused(encode_jpeg(image), "found 40x24");
  image_options() = before;
}

TEST(image_header, bad_png_headers_are_refused) {
  const Bytes file = encode_png(picture(9, 7));
  const auto with_byte = [&](size_t at, int value) { return with_checksums(changed(file, at, {value})); };
  expect_refused(with_byte(24, 4), "expected a bit depth of a RGB PNG, found 4");
  expect_refused(with_byte(24, 3), "found 3");
  expect_refused(with_byte(25, 1), "expected a PNG colour type, found 1");
  expect_refused(with_byte(25, 7), "expected a PNG colour type, found 7");
  expect_refused(with_byte(25, 3), "expected a PNG palette before the pixels, found none");
  expect_refused(with_byte(28, 2), "interlace 0 or 1, found 0, 0 and 2");
}

}  // namespace
}  // namespace depthstill
