// The decoders beside each other: the same pixels of PNG, nearly the same of JPEG, and the same verdict on damage.
#include <gtest/gtest.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>

#include "engine/io/image.h"
#include "kernels/core/error.h"
#include "tests/io/jpeg_writer.h"
#include "tests/io/test_files.h"
#include "tests/io/test_images.h"

namespace depthstill {
namespace {

using namespace testing_files;
using Bytes = std::vector<uint8_t>;

// Each decoder that the build has, in turn; those of the environment afterwards.
void for_each_decoder(const std::function<void()>& test) {
  const ImageOptions before = image_options();
  for (const bool libraries : {true, false}) {
    image_options().libraries = libraries;
    SCOPED_TRACE(image_decoders().png + ", " + image_decoders().jpeg);
    test();
  }
  image_options() = before;
}

struct PngForm {
  int bits, colour, channels;
};
constexpr PngForm kPngForms[] = {{1, 0, 1}, {2, 0, 1},  {4, 0, 1},  {8, 0, 1}, {16, 0, 1},
                                 {8, 2, 3}, {16, 2, 3}, {1, 3, 1},  {2, 3, 1}, {4, 3, 1},
                                 {8, 3, 1}, {8, 4, 2},  {16, 4, 2}, {8, 6, 4}, {16, 6, 4}};

int sample_of(const PngForm& form, int x, int y, int channel) {
  return (x * 1021 + y * 7919 + channel * 4099 + x * y * 31) & ((1 << form.bits) - 1);
}

int palette_of(int index, int channel) { return (index * 37 + channel * 91) & 255; }

void append_rows(Bytes& raw, const PngForm& form, int width, int height, int left, int top, int step_x, int step_y) {
  for (int y = top; y < height; y += step_y) {
    if (left >= width) continue;
    raw.push_back(0);  // no filter
    int held = 0, bits = 0;
    for (int x = left; x < width; x += step_x) {
      for (int c = 0; c < form.channels; ++c) {
        held = held << form.bits | sample_of(form, x, y, c);
        for (bits += form.bits; bits >= 8; bits -= 8) raw.push_back(static_cast<uint8_t>(held >> (bits - 8)));
        held &= (1 << bits) - 1;
      }
    }
    if (bits > 0) raw.push_back(static_cast<uint8_t>(held << (8 - bits)));
  }
}

void append_chunk(Bytes& file, const char* type, const Bytes& data) {
  for (int shift = 24; shift >= 0; shift -= 8) file.push_back(static_cast<uint8_t>(data.size() >> shift));
  file.insert(file.end(), type, type + 4);
  file.insert(file.end(), data.begin(), data.end());
  file.insert(file.end(), 4, 0);
}

Bytes png_of(const PngForm& form, int width, int height, bool interlaced, const std::function<void(Bytes&)>& edit) {
  Bytes raw;
  if (interlaced) {
    constexpr int kPasses[7][4] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                                   {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
    for (const auto& pass : kPasses) append_rows(raw, form, width, height, pass[0], pass[1], pass[2], pass[3]);
  } else {
    append_rows(raw, form, width, height, 0, 0, 1, 1);
  }
  uLongf size = compressBound(static_cast<uLong>(raw.size()));
  Bytes packed(size), palette, alpha;
  compress2(packed.data(), &size, raw.data(), static_cast<uLong>(raw.size()), 6);
  packed.resize(size);
  if (edit) edit(packed);
  for (int i = 0; i < 3 << form.bits && form.colour == 3; ++i) {
    palette.push_back(static_cast<uint8_t>(palette_of(i / 3, i % 3)));
  }
  for (int i = 0; i < 1 << form.bits && form.colour == 3; ++i) alpha.push_back(static_cast<uint8_t>(i));
  if (form.colour == 0) alpha = {0, 1};
  Bytes file = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  append_chunk(file, "IHDR",
               {0, 0, 0, static_cast<uint8_t>(width), 0, 0, 0, static_cast<uint8_t>(height),
                static_cast<uint8_t>(form.bits), static_cast<uint8_t>(form.colour), 0, 0, interlaced});
  if (!palette.empty()) append_chunk(file, "PLTE", palette);
  if (!alpha.empty()) append_chunk(file, "tRNS", alpha);
  append_chunk(file, "IDAT", packed);
  append_chunk(file, "IEND", {});
  return with_checksums(std::move(file));
}

int shown(const PngForm& form, int x, int y, int channel) {
  const int sample = sample_of(form, x, y, form.channels >= 3 ? channel : 0);
  if (form.colour == 3) return palette_of(sample, channel);
  return form.bits == 16 ? sample >> 8 : sample * 255 / ((1 << form.bits) - 1);
}

TEST(decoders, all_kinds_of_png_have_the_same_pixels) {
  for_each_decoder([] {
    for (const PngForm& form : kPngForms) {
      for (const auto& [width, height] : {std::pair{1, 1}, {3, 2}, {19, 11}, {33, 9}}) {
        for (const bool interlaced : {false, true}) {
          const Bytes file = png_of(form, width, height, interlaced, {});
          const Image8 image = decode_image(file, "m");
          ASSERT_EQ(image.size(), (ImageSize{width, height}));
          for (int i = 0; i < 3 * width * height; ++i) {
            ASSERT_EQ(image.rgb[static_cast<size_t>(i)], shown(form, i / 3 % width, i / 3 / width, i % 3))
                << form.bits << " bits, colour " << form.colour << ", interlaced " << interlaced << ", " << i;
          }
          if (form.bits != 16 || form.colour != 0) continue;
          const Image16 grey = decode_png16(file, "m");
          for (int i = 0; i < width * height; ++i) {
            ASSERT_EQ(grey.grey[static_cast<size_t>(i)], sample_of(form, i % width, i / width, 0)) << i;
          }
        }
      }
    }
  });
}

// Pixels may name colours behind the end of a palette; stb_image has whatever its memory held there.
TEST(decoders, colours_that_a_palette_lacks_are_black) {
  const PngForm form{8, 3, 1};
  constexpr int kColours = 100;
  Bytes file = png_of(form, 33, 9, false, {});
  for (const auto& [type, bytes] : {std::pair{"PLTE", 3}, {"tRNS", 1}}) {
    const auto chunk = std::search(file.begin(), file.end(), type, type + 4) - 4;
    const ptrdiff_t kept = bytes * kColours;
    file.erase(chunk + 8 + kept, chunk + 8 + bytes * 256);
    chunk[2] = static_cast<uint8_t>(kept >> 8);
    chunk[3] = static_cast<uint8_t>(kept & 0xff);
  }
  file = with_checksums(std::move(file));
  for_each_decoder([&] {
    const Image8 image = decode_image(file, "m");
    int lacking = 0;
    for (int i = 0; i < 3 * 33 * 9; ++i) {
      const int x = i / 3 % 33, y = i / 3 / 33, channel = i % 3;
      const bool lacks = sample_of(form, x, y, 0) >= kColours;
      lacking += lacks;
      ASSERT_EQ(image.rgb[static_cast<size_t>(i)], lacks ? 0 : shown(form, x, y, channel)) << i;
    }
    EXPECT_GT(lacking, 0);
  });
}

TEST(decoders, png_rows_that_are_missing_or_damaged_are_refused) {
  const auto end_of_rows = [](size_t rows) {
    return [rows](Bytes& packed) {  // a whole stream of fewer rows
      Bytes raw(rows * (1 + 3 * 40), 0);
      uLongf size = compressBound(static_cast<uLong>(raw.size()));
      packed.resize(size);
      compress2(packed.data(), &size, raw.data(), static_cast<uLong>(raw.size()), 6);
      packed.resize(size);
      packed.insert(packed.end(), 64, 0);  // as many bytes as the rows could be
    };
  };
  for_each_decoder([&] {
    for (const bool interlaced : {false, true}) {
      for (const size_t rows : {size_t{0}, size_t{1}, size_t{29}}) {
        const Bytes file = png_of({8, 2, 3}, 40, 30, interlaced, end_of_rows(rows));
        expect_clear(error_of([&] { decode_image(file, "a.png"); }), "a.png: expected ");
      }
      const Bytes wrong_sum = png_of({8, 2, 3}, 40, 30, interlaced, [](Bytes& packed) { packed.back() ^= 1; });
      expect_clear(error_of([&] { decode_image(wrong_sum, "a.png"); }), "damaged pixel data");
      const Bytes cut = png_of({8, 2, 3}, 40, 30, interlaced, [](Bytes& packed) { packed.resize(packed.size() - 5); });
      expect_clear(error_of([&] { decode_image(cut, "a.png"); }), "a.png: expected ");
    }
  });
}

TEST(decoders, each_reads_what_each_writes) {
  const Image8 colour = picture(37, 21);
  const Image16 grey = ramp(37, 21);
  std::vector<Bytes> files, deep;
  for_each_decoder([&] {
    files.push_back(encode_png(colour, 6));
    deep.push_back(encode_png(grey, 6));
  });
  for_each_decoder([&] {
    for (const Bytes& file : files) EXPECT_EQ(decode_image(file, "m").rgb, colour.rgb);
    for (const Bytes& file : deep) EXPECT_EQ(decode_png16(file, "m").grey, grey.grey);
  });
}

#if DEPTHSTILL_LIBJPEG

// Smooth with edges, as photos are.
Image8 photo(int width, int height) {
  Image8 image{width, height, {}};
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      const bool inside = (x - width / 3) * (x - width / 3) + (y - height / 2) * (y - height / 2) < height * height / 9;
      const double wave = 40 * std::sin(0.11 * x + 0.07 * y);
      image.rgb.push_back(static_cast<uint8_t>(inside ? 200 + wave : 90 + wave));
      image.rgb.push_back(static_cast<uint8_t>(inside ? 60 - wave / 2 : 110 + y * 100 / height));
      image.rgb.push_back(static_cast<uint8_t>(inside ? 70 : 130 - wave));
    }
  }
  return image;
}

TEST(decoders, jpeg_pixels_are_near) {
  for (const JpegForm& form : jpeg_forms()) {
    for (const auto& [width, height] : {std::pair{1, 1}, {7, 5}, {131, 77}}) {
      SCOPED_TRACE(form.name);
      const Bytes file = write_jpeg(photo(width, height), form);
      std::vector<Image8> images;
      for_each_decoder([&] { images.push_back(decode_image(file, "m")); });
      ASSERT_EQ(images[0].size(), (ImageSize{width, height}));
      ASSERT_EQ(images[1].size(), (ImageSize{width, height}));
      int greatest = 0;
      double sum = 0;
      for (size_t i = 0; i < images[0].rgb.size(); ++i) {
        const int difference = std::abs(images[0].rgb[i] - images[1].rgb[i]);
        greatest = std::max(greatest, difference);
        sum += difference;
      }
      const double mean = sum / static_cast<double>(images[0].rgb.size());
      // Chroma is doubled with other weights, which shows most in pictures of a few pixels; sums are rounded elsewhere.
      EXPECT_LE(greatest, width < 16 ? 8 : 4);
      EXPECT_LE(mean, width < 16 ? 0.8 : 0.3);
    }
  }
}

// The first byte of each scan, and the one behind its last.
std::vector<std::pair<size_t, size_t>> scans_of(const Bytes& file) {
  std::vector<std::pair<size_t, size_t>> scans;
  for (size_t at = 2; file[at + 1] != 0xd9;) {
    const bool scan = file[at + 1] == 0xda;
    at += 2 + static_cast<size_t>(file[at + 2] << 8 | file[at + 3]);
    if (!scan) continue;
    const size_t begin = at;
    while (file[at] != 0xff || file[at + 1] == 0 || (file[at + 1] >= 0xd0 && file[at + 1] <= 0xd7)) ++at;
    scans.emplace_back(begin, at);
  }
  return scans;
}

// Between its scans, a progressive picture is whole, but coarse.
TEST(decoders, jpeg_scans_that_end_early_are_refused) {
  for (const JpegForm& form : jpeg_forms()) {
    SCOPED_TRACE(form.name);
    const Bytes file = write_jpeg(photo(83, 61), form);
    for_each_decoder([&] {
      for (const auto& [begin, behind] : scans_of(file)) {
        for (size_t end = begin; end + 1 < behind; end += 1 + (end - begin) / 5) {  // the last byte may be padding
          Bytes cut(file.begin(), file.begin() + static_cast<ptrdiff_t>(end));
          if (cut.back() == 0xff) continue;
          cut.insert(cut.end(), {0xff, 0xd9});
          expect_clear(error_of([&] { decode_image(cut, "a.jpg"); }), "a.jpg: expected ");
        }
      }
    });
  }
}

TEST(decoders, jpeg_restart_markers_come_in_turn) {
  const Bytes file = write_jpeg(photo(83, 61), {.name = "restarts", .restart_interval = 2});
  const uint8_t marker[] = {0xff, 0xd2};
  const auto found = std::search(file.begin(), file.end(), marker, marker + 2);
  ASSERT_NE(found, file.end());
  for_each_decoder([&] {
    Bytes wrong = file;
    wrong[static_cast<size_t>(found - file.begin()) + 1] = 0xd5;
    expect_clear(error_of([&] { decode_image(wrong, "a.jpg"); }), "a.jpg: expected ");
    Bytes missing = file;
    missing.erase(missing.begin() + (found - file.begin()), missing.begin() + (found - file.begin()) + 2);
    expect_clear(error_of([&] { decode_image(missing, "a.jpg"); }), "a.jpg: expected ");
  });
}

TEST(decoders, mutated_jpegs_throw_or_decode) {
  for (const JpegForm& form : jpeg_forms()) {
    const Bytes file = write_jpeg(photo(40, 24), form);
    for_each_decoder([&] { try_mutations(file, 300, [](const auto& bytes) { decode_image(bytes, "m"); }); });
  }
}

TEST(decoders, one_file_has_the_same_pixels_every_time) {
  const Bytes file = write_jpeg(photo(83, 61), {.name = "progressive", .progressive = true});
  for_each_decoder([&] { EXPECT_EQ(decode_image(file, "m").rgb, decode_image(file, "m").rgb); });
}

#endif

}  // namespace
}  // namespace depthstill
