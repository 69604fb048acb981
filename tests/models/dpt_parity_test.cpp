// Depth Anything networks against Hugging Face's (tests/oracle/make_dpt_fixture.py): sampled outputs, and every
// parameter's gradient of an L1 loss.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "engine/io/safetensors.h"
#include "engine/ops_loss.h"
#include "models/depth_anything.h"
#include "models/model_table.h"
#include "tests/models/oracle.h"

namespace depthstill {
namespace {

struct Case {
  const char* name;
  int64_t height, width;
};

void set_weights(const DepthModel& student) {
  for (const StateEntry& entry : student.state()) {
    const Shape file = to_file_shape(entry.tensor->shape(), entry.layout);
    double offset = 0.0, scale = std::sqrt(3.0 * static_cast<double>(file[0]) / static_cast<double>(file.numel()));
    if (entry.name.ends_with("gamma")) {
      offset = 0.5;
      scale = 0.1;
    } else if (entry.name.find("norm") != std::string::npos && entry.name.ends_with("weight")) {
      offset = 1.0;
      scale = 0.1;
    } else if (entry.name.ends_with("pos_embed") || entry.name.ends_with("cls_token")) {
      scale = 0.2;
    } else if (entry.name.ends_with("bias")) {
      scale = 0.1;
    }
    copy_(*entry.tensor, from_file_layout(test::hash_tensor(entry.name, file, offset, scale), entry.layout));
  }
}

std::unique_ptr<DepthModel> make(const std::string& name) {
  const Head head = name == "dpt_tiny_metric" ? Head::kRegression : Head::kRelative;
  const ModelOptions options{.head = head, .d_max = 20.0f};
  if (!name.starts_with("dpt_tiny")) return make_model(name, options);
  const DepthAnythingConfig tiny{{.dim = 48, .depth = 4, .heads = 3, .taps = {0, 1, 2, 3}, .grid = 4},
                                 {.dim = 48, .features = 16, .out_channels = {8, 12, 16, 24}}};
  return std::make_unique<DepthAnything>(name, tiny, options);
}

class DptParity : public testing::TestWithParam<Case> {};

TEST_P(DptParity, OutputsAndGradients) {
  const auto& [name, height, width] = GetParam();
  const SafetensorsFile fixture(
      concat_text(DEPTHSTILL_SOURCE_DIR "/tests/oracle/", name, '_', height, 'x', width, ".safetensors"));
  const std::unique_ptr<DepthModel> student = make(name);
  set_weights(*student);
  const Tensor y = student->forward(test::hash_tensor("image", {1, height, width, 3}, 0.0, 2.0)).map;
  const std::vector<float> expected = fixture.read_floats("output");
  EXPECT_LE(test::relative_distance(test::samples("output", y, expected.size()), expected), 1e-4);

  const std::vector<float> found = to_vector<float>(y), target = test::hash_values("target", y.numel(), 1.0, 1.0);
  std::vector<float> dy(found.size());
  for (size_t i = 0; i < dy.size(); ++i) {
    dy[i] = (found[i] > target[i] ? 1.0f : -1.0f) / static_cast<float>(dy.size());
  }
  backward(y, tensor<float>(y.shape(), dy));
  const test::ParityReport report = test::expect_gradients(*student, fixture, "grad/", 1e-3);
  std::printf("largest gradient error %.2e, of %s\n", report.worst, report.worst_name.c_str());
}

std::string name_of_case(const testing::TestParamInfo<Case>& info) {
  return concat_text(info.param.name, '_', info.param.height, 'x', info.param.width);
}

INSTANTIATE_TEST_SUITE_P(Tiny, DptParity,
                         testing::Values(Case{"dpt_tiny_relative", 70, 42}, Case{"dpt_tiny_metric", 56, 56}),
                         name_of_case);
INSTANTIATE_TEST_SUITE_P(FullSize, DptParity,
                         testing::Values(Case{"dpt_s", 518, 518}, Case{"dpt_s", 280, 504}, Case{"dpt_b", 280, 504}),
                         name_of_case);

}  // namespace
}  // namespace depthstill
