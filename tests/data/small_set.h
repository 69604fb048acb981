// A data set of a few small generated samples.
#pragma once

#include <string>

#include "engine/data/dataset.h"
#include "tests/io/test_files.h"

namespace depthstill::testing_files {

inline Image8 numbered_image(int width, int height, int number) {
  Image8 image{width, height, {}};
  for (int i = 0; i < width * height * 3; ++i) image.rgb.push_back(static_cast<uint8_t>(i + number * 31));
  return image;
}

inline DepthMap numbered_depth(int width, int height, int number) {
  DepthMap depth{width, height, {}};
  for (int i = 0; i < width * height; ++i) depth.values.push_back(static_cast<float>(i % 64 + number) / 4.0f);
  return depth;
}

// Writes images/N.png, depth/N.png (v / 256), teacher/images_N.png (80 / 65535) for N = 0 .. count - 1 and list.txt.
inline DatasetSpec write_small_set(const TemporaryFolder& folder, int count, int width = 24, int height = 16) {
  for (const char* name : {"images", "depth", "teacher"}) make_folder(folder / name);
  std::string list;
  for (int i = 0; i < count; ++i) {
    const std::string name = std::to_string(i) + ".png";
    write_png(folder / ("images/" + name), numbered_image(width, height, i), 1);
    write_map(folder / ("depth/" + name), numbered_depth(width, height, i), {1.0 / 256});
    write_map(folder / ("teacher/images_" + name), numbered_depth(width, height, i + 1), {80.0 / 65535});
    list += concat_text("images/", name, " depth/", name, " 50.5\n");
  }
  write_file(folder / "list.txt", list);
  DatasetSpec spec;
  spec.root = folder.path();
  spec.list = "list.txt";
  spec.teacher = TeacherSpec{"teacher"};
  return spec;
}

}  // namespace depthstill::testing_files
