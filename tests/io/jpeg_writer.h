// JPEG files in the forms that cameras and programs write, by libjpeg.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/io/image.h"

namespace depthstill::testing_files {

struct JpegForm {
  std::string name;
  int h = 2, v = 2;  // sampling factors of the first component
  bool progressive = false, grey = false, inks = false;
  int restart_interval = 0;  // units of a scan
};

// `image`: of inks (4 components), the red, green and blue are cyan, magenta and yellow, and black is 200.
std::vector<uint8_t> write_jpeg(const Image8& image, const JpegForm& form, int quality = 85);

std::vector<JpegForm> jpeg_forms();

}  // namespace depthstill::testing_files
