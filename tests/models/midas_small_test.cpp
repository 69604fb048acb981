// MiDaS v2.1 small against PyTorch (tests/oracle/make_midas_fixture.py) and against its published figures.
#include "models/midas_small.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "engine/io/safetensors.h"
#include "models/model_table.h"
#include "tests/models/oracle.h"

namespace depthstill {
namespace {

std::unique_ptr<DepthModel> midas_small() { return make_model("midas_small", {.head = Head::kRelative}); }

TEST(MidasSmall, HasThePublishedParameters) {
  const auto student = midas_small();
  EXPECT_EQ(student->reference_parameter_count(), 21'320'545);
  EXPECT_EQ(student->dead_parameter_names(),
            (std::vector<std::string>{
                "scratch.refinenet4.resConfUnit1.conv1.weight", "scratch.refinenet4.resConfUnit1.conv1.bias",
                "scratch.refinenet4.resConfUnit1.conv2.weight", "scratch.refinenet4.resConfUnit1.conv2.bias"}));
  EXPECT_EQ(default_head("midas_small"), Head::kRelative);
  EXPECT_EQ(student->size_multiple(), 32);
  EXPECT_THROW(make_model("midas_small", {.head = Head::kDpm}), Error);
}

TEST(MidasSmall, CountsItsWork) {
  const auto student = midas_small();
  EXPECT_NEAR(student->gmac(512, 384), 3.0 * student->gmac(256, 256), 1e-9);
  // The head alone: 3x3 64 -> 32 at half size, 3x3 32 -> 32 and 1x1 32 -> 1 at full size.
  EXPECT_GT(student->gmac(256, 256), (128.0 * 128 * 9 * 64 * 32 + 256.0 * 256 * (9 * 32 * 32 + 32)) * 1e-9);
}

TEST(MidasSmall, RowsThatAreNotNeededAreLeftOut) {
  const auto student = midas_small();
  student->initialize(1);
  student->eval();
  const NoGrad no_grad;
  const Tensor image = test::hash_tensor("image", {1, 32, 64, 3}, 0.0, 2.0);
  const Tensor all = student->forward(image).map, rest = student->forward(image, 5).map;
  EXPECT_EQ(rest.shape(), (Shape{1, 27, 64}));
  EXPECT_EQ(to_vector<float>(rest), to_vector<float>(crop_rows(all, 5, 27)));
}

TEST(MidasSmall, OutputsGradientsAndStatistics) {
  const SafetensorsFile fixture(DEPTHSTILL_SOURCE_DIR "/tests/oracle/midas_small.safetensors");
  const auto student = midas_small();
  test::set_hash_weights(*student);
  const Tensor image = test::hash_tensor("image", {2, 64, 96, 3}, 0.0, 2.0);
  const auto expect_output = [&](const char* key, const Tensor& y) {
    const std::vector<float> expected = fixture.read_floats(key);
    EXPECT_LE(test::relative_distance(test::samples("output", y, expected.size()), expected), 1e-4) << key;
  };
  student->eval();
  {
    const NoGrad no_grad;
    expect_output("eval_output", student->forward_raw(image));
  }
  student->train();
  const Tensor y = student->forward_raw(image);
  EXPECT_EQ(y.shape(), (Shape{2, 64, 96, 1}));
  expect_output("train_output", y);

  // L1 loss against a target around the output's mean.
  const double mean = fixture.read_floats("target_mean").at(0);
  const std::vector<float> out = to_vector<float>(y), offset = test::hash_values("target", y.numel(), 0.0, 1.0);
  std::vector<float> dy(out.size());
  double loss = 0.0;
  const auto n = static_cast<double>(out.size());
  for (size_t i = 0; i < out.size(); ++i) {
    const double residual = out[i] - (mean + offset[i]);
    loss += std::abs(residual) / n;
    dy[i] = static_cast<float>((residual > 0.0 ? 1.0 : -1.0) / n);
  }
  EXPECT_NEAR(loss, fixture.read_floats("l1_loss").at(0), 1e-5);
  backward(y, tensor<float>(y.shape(), dy));

  // On which side of 0 a ReLU's input falls can be a matter of rounding, and so of the order in which a processor adds:
  // one that differs from the oracle's makes the error 1.5e-3 instead of 2e-5.
  const test::ParityReport report = test::expect_gradients(*student, fixture, "grad/", 3e-3);
  std::printf("largest gradient error %.2e, of %s\n", report.worst, report.worst_name.c_str());
  for (const StateEntry& entry : student->state()) {
    if (entry.trainable || entry.tensor->dtype() != DType::kFloat) continue;
    EXPECT_LE(test::digest_error(test::digest(entry.name, *entry.tensor), fixture.read_floats("after/" + entry.name)),
              1e-4)
        << entry.name;
  }
}

}  // namespace
}  // namespace depthstill
