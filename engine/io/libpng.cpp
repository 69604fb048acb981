// PNG by libpng. Rows are taken as they come, so that memory grows with pixels that are there.
#include <png.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>

#include "engine/io/image_decoders.h"
#include "engine/io/png_data.h"
#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill::libpng {
namespace {

// Reading or writing, whichever was begun.
struct Coding {
  png_structp png = nullptr;
  png_infop info = nullptr;
  bool writing = false;
  ErrorJump jump;
  std::span<const uint8_t> in;
  std::vector<uint8_t> out;

  explicit Coding(bool write) : writing(write) {}
  ~Coding() {
    if (writing) {
      png_destroy_write_struct(&png, &info);
    } else {
      png_destroy_read_struct(&png, &info, nullptr);
    }
  }
};

[[noreturn]] void on_error(png_structp png, png_const_charp text) {
  auto& coding = *static_cast<Coding*>(png_get_error_ptr(png));
  std::snprintf(coding.jump.message, sizeof(coding.jump.message), "%s", text);
  std::longjmp(coding.jump.place, 1);
}

// The checksum of the pixels comes after the last row; the library only warns if it is another one.
void on_warning(png_structp png, png_const_charp text) {
  if (std::strstr(text, "incorrect data check") != nullptr) on_error(png, text);
}

void read_bytes(png_structp png, png_bytep to, size_t count) {
  auto& coding = *static_cast<Coding*>(png_get_io_ptr(png));
  if (coding.in.size() < count) png_error(png, "the file ends early");
  std::copy_n(coding.in.begin(), count, to);
  coding.in = coding.in.subspan(count);
}

void write_bytes(png_structp png, png_bytep from, size_t count) {
  auto& coding = *static_cast<Coding*>(png_get_io_ptr(png));
  coding.out.insert(coding.out.end(), from, from + count);
}

// Rows as RGB of 8 bits, or as grey of 16 bits in the machine's byte order.
void set_up(png_structp png, bool grey16) {
  if (grey16) {
    if (std::endian::native == std::endian::little) png_set_swap(png);
    return;
  }
  png_set_palette_to_rgb(png);
  png_set_expand_gray_1_2_4_to_8(png);
  png_set_strip_16(png);
  png_set_strip_alpha(png);
  png_set_gray_to_rgb(png);
}

void create_reader(Coding& coding) {
  coding.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &coding, on_error, on_warning);
  if (coding.png != nullptr) coding.info = png_create_info_struct(coding.png);
}

// T: of a sample. The values of an interlaced picture are complete after its last pass.
template <class T>
void decode(Coding& coding, ImageSize size, size_t channels, std::vector<T>& values) {
  png_structp png = coding.png;
  png_set_user_limits(png, kMaxImageSide, kMaxImageSide);
  png_set_crc_action(png, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);  // check_image_file has compared them
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  png_set_read_fn(png, &coding, read_bytes);
  png_read_info(png, coding.info);
  set_up(png, sizeof(T) == 2);
  const int passes = png_set_interlace_handling(png);
  png_read_update_info(png, coding.info);
  const size_t row = static_cast<size_t>(size.width) * channels, rows = static_cast<size_t>(size.height);
  if (png_get_rowbytes(png, coding.info) != row * sizeof(T)) png_error(png, "rows of another size");
  values.reserve(row * rows);
  for (int pass = 0; pass < passes; ++pass) {
    for (size_t y = 0; y < rows; ++y) {
      if (pass == 0) values.resize(values.size() + row);
      png_read_row(png, reinterpret_cast<png_bytep>(values.data() + y * row), nullptr);
    }
  }
  png_read_end(png, nullptr);
}

template <class T>
std::vector<T> decode_file(std::span<const uint8_t> file, const ImageHeader& header, size_t channels,
                           const std::string& name) {
  if (header.interlaced) check_png_data(file, header, name);  // its first rows are all over the picture
  Coding coding(false);
  coding.in = file;
  std::vector<T> values;
  const bool read = coding.jump.run([&] {
    create_reader(coding);
    if (coding.info != nullptr) decode(coding, header.stored, channels, values);
  });
  check(read && coding.info != nullptr, name, ": expected a ", header.kind, ", found damaged pixel data (",
        one_line(coding.jump.message), ")");  // it may quote the name of a chunk
  return values;
}

}  // namespace

std::string version() { return concat_text("libpng ", png_get_libpng_ver(nullptr)); }

Image8 decode_rgb(std::span<const uint8_t> file, const ImageHeader& header, const std::string& name) {
  return {header.stored.width, header.stored.height, decode_file<uint8_t>(file, header, 3, name)};
}

Image16 decode_grey16(std::span<const uint8_t> file, const ImageHeader& header, const std::string& name) {
  return {header.stored.width, header.stored.height, decode_file<uint16_t>(file, header, 1, name)};
}

std::vector<uint8_t> encode(std::span<const uint8_t> raw, ImageSize size, int bits, bool grey, int level) {
  Coding coding(true);
  const bool written = coding.jump.run([&] {
    coding.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &coding, on_error, on_warning);
    if (coding.png != nullptr) coding.info = png_create_info_struct(coding.png);
    if (coding.info == nullptr) return;
    png_set_write_fn(coding.png, &coding, write_bytes, nullptr);
    png_set_IHDR(coding.png, coding.info, static_cast<png_uint_32>(size.width), static_cast<png_uint_32>(size.height),
                 bits, grey ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_compression_level(coding.png, level);
    png_write_info(coding.png, coding.info);
    const size_t row_bytes = raw.size() / static_cast<size_t>(size.height);
    for (size_t at = 0; at < raw.size(); at += row_bytes) png_write_row(coding.png, &raw[at]);
    png_write_end(coding.png, coding.info);
  });
  check(written && coding.info != nullptr, "encode_png: expected libpng to write a ", size, " image, found '",
        coding.jump.message, "'");
  return std::move(coding.out);
}

}  // namespace depthstill::libpng
