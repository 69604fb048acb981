#include "models/predictor.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "engine/io/text_file.h"
#include "models/model_file.h"
#include "models/model_table.h"
#include "tests/io/test_files.h"

namespace depthstill {
namespace {

using testing_files::error_of;
using testing_files::TemporaryFolder;

std::unique_ptr<DepthModel> small_unet(Head head) {
  auto model = make_model("mobilenet_unet", {.head = head, .bins = 8});
  model->initialize(1);
  model->eval();
  return model;
}

Image8 picture(int width, int height) {
  Image8 image{width, height, {}};
  for (int i = 0; i < 3 * width * height; ++i) image.rgb.push_back(static_cast<uint8_t>(i * 37 % 251));
  return image;
}

void set_first(const DepthModel& model, const std::string& name, float value) {
  for (const StateEntry& entry : model.state()) {
    if (entry.name == name) entry.tensor->data<float>()[0] = value;
  }
}

// Weights of infinity would be refused when they are read; finite ones may still overflow.
TEST(Predictor, AMapThatIsNotFiniteIsNoResult) {
  const Head heads[] = {Head::kRegression, Head::kDpm};
  const char* const biases[] = {"decode_head.conv_depth.bias", "decode_head.conv_out.0.bias"};
  for (const size_t i : {0, 1}) {
    const auto model = small_unet(heads[i]);
    PredictOptions options;
    options.flip = false;
    const Predictor predictor(*model, options);
    EXPECT_EQ(predictor(picture(45, 33), "a.png").size(), (ImageSize{45, 33}));
    set_first(*model, biases[i], std::numeric_limits<float>::quiet_NaN());
    EXPECT_EQ(error_of([&] { predictor(picture(45, 33), "a.png"); }),
              "a.png: expected a finite map of mobilenet_unet, found nan at row 0, column 0 of its 45x33 pixels");
  }
}

TEST(Predictor, WeightsThatAreNotFiniteAreNamed) {
  const TemporaryFolder folder;
  const std::string path = folder / "w.safetensors", name = "backbone.conv1.bn.running_var";
  const auto model = small_unet(Head::kDpm);
  set_first(*model, name, std::numeric_limits<float>::infinity());
  save_model(path, *model);
  const std::string expected = path + ": tensor '" + name + "' (32): expected finite weights, found inf as element 0";
  EXPECT_EQ(error_of([&] { load_model(path); }), expected);
  EXPECT_EQ(error_of([&] { load_weights(*model, path); }), expected);
  EXPECT_EQ(error_of([&] { load_initial(*model, path); }), expected);
  EXPECT_NE(error_of([&] { save_model(path, *model, {}, StoredType::kF16); }).find("F16 can hold, found inf"),
            std::string::npos);
}

}  // namespace
}  // namespace depthstill
