// JPEG by libjpeg-turbo, or another libjpeg: slow integer DCT and smooth chroma, both the library's defaults. Rows are
// taken as they come, so that memory grows with pixels that are there.
#include <algorithm>
#include <cstdio>

#include "engine/io/image_decoders.h"
#include "kernels/core/error.h"
// clang-format off: jpeglib.h needs cstdio before it.
#include <jerror.h>
#include <jpeglib.h>
// clang-format on

namespace depthstill::libjpeg {
namespace {

struct Decoding {
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  ErrorJump jump;
  ~Decoding() { jpeg_destroy_decompress(&info); }
};

[[noreturn]] void on_error(j_common_ptr info) {
  auto& decoding = *static_cast<Decoding*>(info->client_data);
  char text[JMSG_LENGTH_MAX];
  info->err->format_message(info, text);
  std::snprintf(decoding.jump.message, sizeof(decoding.jump.message), "%s", text);
  std::longjmp(decoding.jump.place, 1);
}

// The library goes on after these, with something in place of the pixels that are missing.
bool loses_pixels(int warning) {
  return warning == JWRN_HIT_MARKER || warning == JWRN_HUFF_BAD_CODE || warning == JWRN_MUST_RESYNC ||
         warning == JWRN_JPEG_EOF;
}

void on_message(j_common_ptr info, int level) {
  if (level < 0 && loses_pixels(info->err->msg_code)) on_error(info);
}

uint8_t product(int a, int b) { return static_cast<uint8_t>((a * b + 127) / 255); }

// Adobe's files hold inks inverted, others as they are.
void inks_to_rgb(const uint8_t* inks, int width, bool inverted, uint8_t* rgb) {
  for (int i = 0; i < width; ++i, inks += 4, rgb += 3) {
    for (int c = 0; c < 3; ++c) rgb[c] = inverted ? product(inks[c], inks[3]) : product(255 - inks[c], 255 - inks[3]);
  }
}

void decode(Decoding& decoding, std::span<const uint8_t> file, std::vector<uint8_t>& inks, Image8& image) {
  jpeg_decompress_struct& info = decoding.info;
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, file.data(), static_cast<unsigned long>(file.size()));
  jpeg_read_header(&info, TRUE);
  const bool has_inks = info.num_components == 4;
  info.out_color_space = has_inks ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(&info);
  image.width = static_cast<int>(info.output_width);
  image.height = static_cast<int>(info.output_height);
  const size_t row_bytes = size_t{3} * info.output_width;
  image.rgb.reserve(row_bytes * info.output_height);
  if (has_inks) inks.resize(size_t{4} * info.output_width);
  while (info.output_scanline < info.output_height) {
    image.rgb.resize(image.rgb.size() + row_bytes);
    uint8_t* rgb = image.rgb.data() + image.rgb.size() - row_bytes;
    JSAMPROW row = has_inks ? inks.data() : rgb;
    jpeg_read_scanlines(&info, &row, 1);
    if (has_inks) inks_to_rgb(inks.data(), image.width, info.saw_Adobe_marker != 0, rgb);
  }
  jpeg_finish_decompress(&info);
}

#define DEPTHSTILL_TEXT_OF(x) #x
#define DEPTHSTILL_TEXT(x) DEPTHSTILL_TEXT_OF(x)

}  // namespace

std::string version() {
#if defined(LIBJPEG_TURBO_VERSION)
  return "libjpeg-turbo " DEPTHSTILL_TEXT(LIBJPEG_TURBO_VERSION);
#else
  return "libjpeg " DEPTHSTILL_TEXT(JPEG_LIB_VERSION);
#endif
}

Image8 decode_rgb(std::span<const uint8_t> file, const ImageHeader& header, const std::string& name) {
  Decoding decoding;
  decoding.info.err = jpeg_std_error(&decoding.errors);
  decoding.info.client_data = &decoding;
  decoding.errors.error_exit = on_error;
  decoding.errors.emit_message = on_message;
  std::vector<uint8_t> inks;
  Image8 image;
  if (!decoding.jump.run([&] { decode(decoding, file, inks, image); })) {
    const int rows = static_cast<int>(decoding.info.input_iMCU_row) * decoding.info.max_v_samp_factor * DCTSIZE;
    const int height = header.stored.height, row = std::min(rows, height - 1);
    const bool ended = decoding.errors.msg_code == JWRN_HIT_MARKER || decoding.errors.msg_code == JWRN_JPEG_EOF;
    check(!ended, name, ": expected all pixels of a JPEG scan, found its end at row ", row, " of ", height);
    fail(name, ": expected a JPEG, found damaged pixel data at row ", row, " of ", height, " (", decoding.jump.message,
         ")");
  }
  return image;
}

}  // namespace depthstill::libjpeg
