// Writes the depth of an image.
//   depth_of_image WEIGHTS IMAGE DEPTH.npy     (or .pfm; WEIGHTS: .safetensors or a published .pth)
#include <depthstill.h>

#include <algorithm>
#include <cstdio>

namespace ds = depthstill;

int main(int argc, char** argv) try {
  if (argc != 4) return std::fprintf(stderr, "usage: depth_of_image WEIGHTS IMAGE DEPTH\n"), 2;
  const auto model = ds::load_model(argv[1]);
  model->eval();
  const ds::Predictor predict(*model, {.flip = false});
  const ds::DepthMap map = predict(ds::read_image(argv[2]), argv[2]);
  ds::write_map(argv[3], map, {});
  const auto [least, greatest] = std::minmax_element(map.values.begin(), map.values.end());
  std::printf("%s: %d x %d, %s, %.3g to %.3g\n", argv[3], map.width, map.height, ds::name_of(map.kind).c_str(),
              static_cast<double>(*least), static_cast<double>(*greatest));
} catch (const ds::Error& error) {
  return std::fprintf(stderr, "depth_of_image: %s\n", error.what()), 1;
}
