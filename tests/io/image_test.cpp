#include "engine/io/image.h"

#include <gtest/gtest.h>

#include <cstring>

#include "engine/io/text_file.h"
#include "tests/io/test_files.h"
#include "tests/io/test_images.h"

namespace depthstill {
namespace {

using testing_files::error_of;
using testing_files::expect_clear;
using testing_files::picture;
using testing_files::ramp;
using testing_files::TemporaryFolder;
using testing_files::try_mutations;
using testing_files::with_checksums;

TEST(image, png_round_trip) {
  for (const auto& [width, height] : {std::pair{1, 1}, {3, 1}, {1, 7}, {17, 13}, {64, 33}}) {
    for (const int level : {1, 6, 9}) {
      const Image8 colour = picture(width, height);
      const Image8 colour_back = decode_image(encode_png(colour, level), "memory");
      EXPECT_EQ(colour_back.size(), colour.size());
      EXPECT_EQ(colour_back.rgb, colour.rgb);
      const Image16 grey = ramp(width, height);
      const Image16 grey_back = decode_png16(encode_png(grey, level), "memory");
      EXPECT_EQ(grey_back.size(), grey.size());
      EXPECT_EQ(grey_back.grey, grey.grey);
    }
  }
}

TEST(image, files_round_trip) {
  const TemporaryFolder folder;
  const Image8 colour = picture(19, 11);
  write_png(folder / "a.png", colour);
  write_png(folder / "b.png", ramp(19, 11));
  EXPECT_EQ(read_image(folder / "a.png").rgb, colour.rgb);
  EXPECT_EQ(read_png16(folder / "b.png").grey, ramp(19, 11).grey);
  EXPECT_EQ(folder.file_count(), 2u);
}

TEST(image, jpeg_is_near) {
  Image8 smooth{48, 32, {}};
  for (int i = 0; i < 48 * 32; ++i) {
    for (int c = 0; c < 3; ++c) smooth.rgb.push_back(static_cast<uint8_t>(40 + 30 * c + (i % 48) * 2 + i / 48));
  }
  const Image8 back = decode_image(encode_jpeg(smooth, 95), "memory");
  ASSERT_EQ(back.size(), smooth.size());
  for (size_t i = 0; i < back.rgb.size(); ++i) EXPECT_NEAR(back.rgb[i], smooth.rgb[i], 6) << i;
}

TEST(image, every_truncation_is_refused) {
  const TemporaryFolder folder;
  for (const std::vector<uint8_t>& file :
       {encode_png(picture(9, 7)), encode_png(ramp(9, 7)), encode_jpeg(picture(17, 9), 80)}) {
    for (size_t length = 0; length < file.size(); ++length) {
      const std::span<const uint8_t> part(file.data(), length);
      const std::string message = error_of([&] { decode_image(part, "list:3: a.png"); });
      ASSERT_FALSE(message.empty()) << "accepted " << length << " of " << file.size() << " bytes";
      expect_clear(message, "list:3: a.png: ");
    }
  }
}

TEST(image, mutations_throw_or_decode) {
  const std::vector<uint8_t> png = encode_png(picture(23, 9)), grey = encode_png(ramp(23, 9));
  try_mutations(png, 2000, [](const auto& file) { decode_image(file, "m"); });
  try_mutations(png, 4000, [](const auto& file) { decode_image(with_checksums(file), "m"); });
  try_mutations(grey, 4000, [](const auto& file) { decode_png16(with_checksums(file), "m"); });
  try_mutations(encode_jpeg(picture(33, 17), 80), 6000, [](const auto& file) { decode_image(file, "m"); });
}

TEST(image, png_damage_is_found) {
  const std::vector<uint8_t> file = encode_png(picture(9, 7));
  for (size_t at = 8; at < file.size(); ++at) {
    std::vector<uint8_t> damaged = file;
    damaged[at] ^= 0x10;
    EXPECT_THROW(decode_image(damaged, "m"), Error) << at;
  }
}

TEST(image, size_is_checked_before_decoding) {
  std::vector<uint8_t> file = encode_png(picture(9, 7));
  for (const uint32_t side : {0u, 16385u, 0x7fffffffu, 0xffffffffu}) {
    for (size_t i = 0; i < 4; ++i) file[16 + i] = static_cast<uint8_t>(side >> (24 - 8 * i));
    expect_clear(error_of([&] { decode_image(with_checksums(file), "m"); }), "m: expected an image of 1 to 16384");
  }
  std::vector<uint8_t> jpeg = encode_jpeg(picture(9, 7), 80);
  for (size_t at = 2; at + 10 < jpeg.size(); ++at) {
    if (jpeg[at] == 0xff && jpeg[at + 1] == 0xc0) std::memset(&jpeg[at + 5], 0xff, 4);
  }
  expect_clear(error_of([&] { decode_image(jpeg, "m"); }), "65535x65535");
}

TEST(image, wrong_kinds_are_named) {
  const std::vector<uint8_t> colour = encode_png(picture(9, 7));
  EXPECT_EQ(error_of([&] { decode_png16(colour, "d.png"); }),
            "d.png: expected a 16-bit grey PNG, found a 8-bit RGB PNG");
  EXPECT_EQ(error_of([&] { decode_png16(encode_jpeg(picture(9, 7)), "d.png"); }),
            "d.png: expected a 16-bit grey PNG, found a JPEG");
  const std::string text = "GIF89a and so on";
  const std::vector<uint8_t> gif(text.begin(), text.end());
  expect_clear(error_of([&] { decode_image(gif, "m"); }), "m: expected a PNG or JPEG");
  expect_clear(error_of([&] { decode_image({}, "m"); }), "found an empty file");
}

TEST(image, missing_file_and_folder) {
  const TemporaryFolder folder;
  expect_clear(error_of([&] { read_image(folder / "none.png"); }), "none.png: expected a readable file");
  expect_clear(error_of([&] { read_image(folder.path()); }), "found a folder");
}

TEST(image, real_files_decode) {
  const auto set = testing_files::find_data_set("kitti");
  if (!set) GTEST_SKIP() << "skipped: no kitti";
  EXPECT_EQ(read_image(*set + "/object/image_2/000000.png").size(), (ImageSize{1224, 370}));
  EXPECT_EQ(read_image(*set + "/object/image_2/000001.jpg").size(), (ImageSize{1242, 375}));
  EXPECT_EQ(read_png16(*set + "/object/depth/000000.png").size(), (ImageSize{1224, 370}));
}

}  // namespace
}  // namespace depthstill
