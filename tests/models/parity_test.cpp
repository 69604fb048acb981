// Whole students against PyTorch (tests/oracle/make_student_fixture.py): outputs, every gradient, running statistics.
#include <gtest/gtest.h>

#include <cstdio>

#include "engine/io/safetensors.h"
#include "models/model_table.h"
#include "tests/models/oracle.h"

namespace depthstill {
namespace {

struct Case {
  const char* model;
  Head head;
};

class Parity : public testing::TestWithParam<Case> {};

TEST_P(Parity, OutputsGradientsAndStatistics) {
  const auto& [model, head] = GetParam();
  const SafetensorsFile fixture(concat_text(DEPTHSTILL_SOURCE_DIR "/tests/oracle/student_", model, ".safetensors"));
  const auto student = make_model(model, {.head = head});
  test::set_hash_weights(*student);
  const Tensor image = test::hash_tensor("image", {2, 64, 96, 3}, 0.0, 2.0);
  const auto expect_output = [&](const char* key, const Tensor& y) {
    const std::vector<float> expected = fixture.read_floats(key);
    EXPECT_LE(test::relative_distance(test::samples("output", y, expected.size()), expected), 1e-4) << key;
  };
  student->eval();
  {
    const NoGrad no_grad;
    expect_output("eval_output", test::output_of(student->forward(image)));
  }
  student->train();
  const Tensor y = test::output_of(student->forward(image));
  expect_output("train_output", y);
  backward(y, test::hash_tensor("dy", y.shape(), 1.0, 1.0));

  const test::ParityReport report = test::expect_gradients(*student, fixture, "grad/", 1e-3);
  std::printf("largest gradient error %.2e, of %s\n", report.worst, report.worst_name.c_str());
  for (const StateEntry& entry : student->state()) {
    if (entry.trainable || entry.tensor->dtype() != DType::kFloat) continue;
    EXPECT_LE(test::digest_error(test::digest(entry.name, *entry.tensor), fixture.read_floats("after/" + entry.name)),
              1e-4)
        << entry.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Students, Parity,
                         testing::Values(Case{"mobilenet_unet", Head::kDpm}, Case{"mobilenet_unet_small", Head::kDpm},
                                         Case{"resnet18_unet", Head::kDpm}, Case{"resnet50_unet", Head::kRegression}),
                         [](const auto& test) { return std::string(test.param.model); });

}  // namespace
}  // namespace depthstill
