#include "engine/io/orientation.h"

#include <gtest/gtest.h>

#include <string>

#include "engine/io/image_header.h"
#include "tests/io/test_files.h"
#include "tests/io/test_images.h"

namespace depthstill {
namespace {

using namespace testing_files;

// EXIF's own words: the upright picture's side that the stored picture's first row is, and that its first column is.
struct OrientationWords {
  int number;
  const char *first_row, *first_column;
};
constexpr OrientationWords kOrientations[] = {{1, "top", "left"},     {2, "top", "right"},  {3, "bottom", "right"},
                                              {4, "bottom", "left"},  {5, "left", "top"},   {6, "right", "top"},
                                              {7, "right", "bottom"}, {8, "left", "bottom"}};

// The upright picture, pixel by pixel from those words.
template <class Image, class T>
Image expected_upright(const Image& stored, std::vector<T> Image::*pixels, const OrientationWords& words,
                       int channels) {
  const bool lying = std::string(words.first_row) == "left" || std::string(words.first_row) == "right";
  Image result{lying ? stored.height : stored.width, lying ? stored.width : stored.height, {}};
  (result.*pixels).resize((stored.*pixels).size());
  const auto place = [&](const std::string& side, int offset, int& x, int& y) {
    if (side == "top") y = offset;
    if (side == "bottom") y = result.height - 1 - offset;
    if (side == "left") x = offset;
    if (side == "right") x = result.width - 1 - offset;
  };
  for (int row = 0; row < stored.height; ++row) {
    for (int column = 0; column < stored.width; ++column) {
      int x = 0, y = 0;
      place(words.first_row, row, x, y);
      place(words.first_column, column, x, y);
      for (int c = 0; c < channels; ++c) {
        (result.*pixels)[static_cast<size_t>((y * result.width + x) * channels + c)] =
            (stored.*pixels)[static_cast<size_t>((row * stored.width + column) * channels + c)];
      }
    }
  }
  return result;
}

TEST(orientation, exif_orientations_stand_upright) {
  const Image8 colour = picture(19, 11);
  const Image16 grey = ramp(19, 11);
  const std::vector<uint8_t> jpeg = encode_jpeg(colour, 90);
  const Image8 stored_jpeg = decode_image(jpeg, "memory");
  for (const OrientationWords& words : kOrientations) {
    for (const bool little : {false, true}) {
      const std::vector<uint8_t> tiff = exif_block(words.number, little);
      const std::vector<uint8_t> png = png_with_exif(encode_png(colour), tiff);
      const Image8 upright = expected_upright(colour, &Image8::rgb, words, 3);
      EXPECT_EQ(check_image_file(png, "memory").size, upright.size()) << words.number;
      EXPECT_EQ(decode_image(png, "memory").size(), upright.size()) << words.number;
      EXPECT_EQ(decode_image(png, "memory").rgb, upright.rgb) << words.number;

      const Image16 upright_grey = expected_upright(grey, &Image16::grey, words, 1);
      const Image16 back = decode_png16(png_with_exif(encode_png(grey), tiff), "memory");
      EXPECT_EQ(back.size(), upright_grey.size()) << words.number;
      EXPECT_EQ(back.grey, upright_grey.grey) << words.number;

      const std::vector<uint8_t> photo = jpeg_with_exif(jpeg, tiff);
      EXPECT_EQ(check_image_file(photo, "memory").size, upright.size()) << words.number;
      EXPECT_EQ(decode_image(photo, "memory").rgb, expected_upright(stored_jpeg, &Image8::rgb, words, 3).rgb)
          << words.number;
    }
  }
}

TEST(orientation, exif_that_makes_no_sense_is_passed_over) {
  const Image8 colour = picture(19, 11);
  const std::vector<uint8_t> whole = exif_block(6, true);
  for (size_t length = 0; length < whole.size() - 8; ++length) {
    const std::vector<uint8_t> cut(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(length));
    EXPECT_EQ(decode_image(png_with_exif(encode_png(colour), cut), "memory").rgb, colour.rgb) << length;
    EXPECT_EQ(decode_image(jpeg_with_exif(encode_jpeg(colour), cut), "memory").size(), colour.size()) << length;
  }
  for (const int number : {0, 9, 255}) {
    EXPECT_EQ(decode_image(png_with_exif(encode_png(colour), exif_block(number, false)), "memory").rgb, colour.rgb);
  }
  EXPECT_EQ(decode_image(png_with_exif(png_with_exif(encode_png(colour), exif_block(1, true)), whole), "m").size(),
            (ImageSize{11, 19}));
  try_mutations(png_with_exif(encode_png(colour), whole), 1000,
                [](const auto& file) { decode_image(with_checksums(file), "m"); });
}

}  // namespace
}  // namespace depthstill
