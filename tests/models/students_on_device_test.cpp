// One training step of whole students on the emulated device against the CPU, at the precision of each type: with the
// libraries' first way to compute each product, and with the last, which is often a fused one.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "losses/tie_kd.h"
#include "models/model_table.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

constexpr int64_t kHeight = 64, kWidth = 96;

struct Step {
  std::vector<float> loss, gradients;
};

// A narrow decoder: the layers and the ways to compute them are those of the wide one.
const std::vector<int64_t> kWidths[] = {{32, 32, 64, 128}, {32, 32, 32, 64, 128}};

Step step_on(Device device, const std::string& model, DType dtype) {
  ModelOptions options{.head = default_head(model), .bins = 33};
  options.decoder_widths = kWidths[model == "resnet18_unet"];
  const std::unique_ptr<DepthModel> student = make_model(model, options);
  student->initialize(7);
  student->to(device);
  student->train();
  const Tensor image = test::random_tensor({2, kHeight, kWidth, 3}, 1);
  const Tensor teacher = to_device(test::random_tensor({2, kHeight, kWidth}, 2, 5.0f, 60.0f), device);
  LossOptions loss = named_loss(student->options().head == Head::kDpm ? "tie_kd" : "l1");
  loss.top_rows = 8;
  const Tensor input = to_device(dtype == DType::kBf16 ? test::to_bf16(image) : image, device);
  const Tensor total = tie_kd_loss(student->forward(input, loss.top_rows), teacher, Tensor(), loss).total;
  Step step{{item(total)}, {}};
  backward(total);
  for (const Tensor& parameter : student->parameter_tensors()) {
    const std::vector<float> gradient = to_vector<float>(parameter.grad());
    step.gradients.insert(step.gradients.end(), gradient.begin(), gradient.end());
  }
  return step;
}

class StudentsOnDevice : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!test::second_device()) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  }
  // Batch norms over few pixels, one above the other, enlarge every rounding: 1e-6 of the image moves mobilenet's
  // gradients by 1e-2. What the CPU does in the same type is the measure.
  void expect_as_near_as_the_cpu(DType dtype, double loss_tolerance, double least_error) {
    const Step exact = step_on(Device::kCpu, GetParam(), DType::kFloat);
    const Step cpu = step_on(Device::kCpu, GetParam(), dtype);
    const double cpu_error = test::relative_error(cpu.gradients, exact.gradients);
    test::for_each_candidate({-1, 1000}, [&] {
      const Step device = step_on(Device::kCuda, GetParam(), dtype);
      EXPECT_LE(test::relative_error(device.loss, cpu.loss), loss_tolerance);
      EXPECT_LE(test::relative_error(device.gradients, exact.gradients), 1.2 * cpu_error + least_error);
    });
  }
};

TEST_P(StudentsOnDevice, StepInFp32) { expect_as_near_as_the_cpu(DType::kFloat, 1e-5, 5e-2); }
TEST_P(StudentsOnDevice, StepInBf16) { expect_as_near_as_the_cpu(DType::kBf16, 2e-2, 0.0); }

INSTANTIATE_TEST_SUITE_P(Models, StudentsOnDevice, ::testing::Values("mobilenet_unet", "resnet18_unet"));

}  // namespace
}  // namespace depthstill
