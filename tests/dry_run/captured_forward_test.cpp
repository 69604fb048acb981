// Predictions on the simulated H100: what a GPU would be given for images that have the same size, or not.
#include "models/captured_forward.h"

#include <gtest/gtest.h>

#include <string>

#include "kernels/core/dry_run.h"
#include "models/model_table.h"
#include "models/predictor.h"

namespace depthstill {
namespace {

class CapturedPredictions : public ::testing::Test {
 protected:
  void SetUp() override {
    enable_dry_run();
    model = make_model("mobilenet_unet", {});
    model->to(Device::kCuda);
    model->eval();
  }
  PredictOptions options(bool flip) const {
    PredictOptions options;
    options.flip = flip;
    options.device = Device::kCuda;
    options.dtype = DType::kBf16;
    options.graph = true;
    options.note = [](const std::string& line) { ADD_FAILURE() << line; };
    return options;
  }
  static cuda::DryRun record_of(const Predictor& predict, ImageSize size) {
    const Image8 image{size.width, size.height,
                       std::vector<uint8_t>(static_cast<size_t>(3 * size.width * size.height))};
    cuda::take_dry_run();
    EXPECT_EQ(predict(image).size(), size);
    return cuda::take_dry_run();
  }

  std::unique_ptr<DepthModel> model;
};

TEST_F(CapturedPredictions, AreOneGraphFromTheFourthImageOfASizeOn) {
  const Predictor predict(*model, options(false));
  size_t launches = 0;
  for (int i = 1; i <= 6; ++i) {
    SCOPED_TRACE(i);
    const cuda::DryRun record = record_of(predict, {96, 64});
    EXPECT_EQ(record.graph_launches, i >= 4 ? 1 : 0);
    if (i == 3) launches = record.launches.size();
    if (i <= 4) continue;
    EXPECT_GE(record.launches.size(), launches) << "the nodes of the graph";
    EXPECT_EQ(record.mallocs + record.frees, 0);
  }
  EXPECT_EQ(record_of(predict, {128, 64}).graph_launches, 0) << "another size";
  EXPECT_EQ(record_of(predict, {96, 64}).graph_launches, 0) << "begins anew";
}

TEST_F(CapturedPredictions, TheMirroredImageIsOneOfTheSameSize) {
  const Predictor predict(*model, options(true));
  for (const int expected : {0, 1, 2}) EXPECT_EQ(record_of(predict, {96, 64}).graph_launches, expected);
}

TEST_F(CapturedPredictions, RunAsTheyAreWhereNoGraphIsWanted) {
  PredictOptions plain = options(false);
  plain.graph = false;
  const Predictor predict(*model, plain);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(record_of(predict, {96, 64}).graph_launches, 0);
}

}  // namespace
}  // namespace depthstill
