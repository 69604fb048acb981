#if DEPTHSTILL_LIBJPEG
#include "tests/io/jpeg_writer.h"

#include <cstdio>
#include <cstdlib>
// clang-format off: jpeglib.h needs cstdio before it.
#include <jpeglib.h>
// clang-format on

namespace depthstill::testing_files {

std::vector<JpegForm> jpeg_forms() {
  return {{.name = "4:4:4", .h = 1, .v = 1},
          {.name = "4:2:2", .h = 2, .v = 1},
          {.name = "4:4:0", .h = 1, .v = 2},
          {.name = "4:2:0"},
          {.name = "4:1:1", .h = 4, .v = 1},
          {.name = "grey", .h = 1, .v = 1, .grey = true},
          {.name = "restarts", .restart_interval = 2},
          {.name = "progressive", .progressive = true},
          {.name = "progressive grey", .h = 1, .v = 1, .progressive = true, .grey = true},
          {.name = "progressive 4:4:4 with restarts", .h = 1, .v = 1, .progressive = true, .restart_interval = 3},
          {.name = "inks", .h = 1, .v = 1, .inks = true}};
}

std::vector<uint8_t> write_jpeg(const Image8& image, const JpegForm& form, int quality) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &bytes, &size);
  const int channels = form.grey ? 1 : form.inks ? 4 : 3;
  info.image_width = static_cast<JDIMENSION>(image.width);
  info.image_height = static_cast<JDIMENSION>(image.height);
  info.input_components = channels;
  info.in_color_space = form.grey ? JCS_GRAYSCALE : form.inks ? JCS_CMYK : JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, quality, TRUE);
  info.comp_info[0].h_samp_factor = form.h;
  info.comp_info[0].v_samp_factor = form.v;
  info.restart_interval = static_cast<unsigned>(form.restart_interval);
  if (form.progressive) jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  std::vector<uint8_t> row(static_cast<size_t>(image.width * channels));
  for (int y = 0; y < image.height; ++y) {
    const uint8_t* rgb = &image.rgb[static_cast<size_t>(3 * y * image.width)];
    for (int x = 0; x < image.width; ++x) {
      for (int c = 0; c < channels; ++c) row[static_cast<size_t>(x * channels + c)] = c < 3 ? rgb[3 * x + c] : 200;
    }
    JSAMPROW rows = row.data();
    jpeg_write_scanlines(&info, &rows, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  std::vector<uint8_t> file(bytes, bytes + size);
  std::free(bytes);
  return file;
}

}  // namespace depthstill::testing_files
#endif
