#include "engine/allocator.h"
#include "engine/ops.h"
#include "engine/ops_loss.h"
#include "tests/ops/loss_oracle.h"

namespace depthstill {
namespace {

using namespace test;

constexpr DpmBins kKitti{257, 1e-3f, 80.0f}, kSmall{11, 1.0f, 6.0f};

struct Case {
  const char* name;  // name in the oracle
  DpmTarget target;
  KlDirection kl;
  float sigma;
};

const Case kCases[] = {
    {"mass/student_teacher", DpmTarget::kMass, KlDirection::kStudentTeacher, 0.8f},
    {"mass/teacher_student", DpmTarget::kMass, KlDirection::kTeacherStudent, 0.8f},
    {"softmax_pdf/student_teacher", DpmTarget::kSoftmaxPdf, KlDirection::kStudentTeacher, 0.5f},
    {"softmax_pdf/teacher_student", DpmTarget::kSoftmaxPdf, KlDirection::kTeacherStudent, 0.5f},
};

DpmOptions options_of(const Case& c) { return {.target = c.target, .kl = c.kl, .sigma = c.sigma}; }

// A scalar whose gradient with respect to x is `weight`.
Tensor weighted_sum(const Tensor& x, const Tensor& weight) {
  const std::vector<float> sum = {static_cast<float>(dot(values_of(x), values_of(weight)))};
  return record("weighted_sum", {x}, tensor<float>({1}, sum),
                [weight](const Tensor&) -> Gradients { return {weight}; });
}

TEST(Dpm, MatchesPyTorch) {
  const Tensor teacher = oracle_tensor("dpm/teacher"), ddepth = oracle_tensor("dpm/ddepth");
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const std::string key = std::string("dpm/") + c.name;
    Tensor logits = oracle_tensor("dpm/logits");
    logits.set_requires_grad();
    const DpmOutput y = dpm_loss(logits, teacher, kKitti, options_of(c));
    EXPECT_LE(relative_error(values_of(y.kl), oracle_values(key + "/kl")), 1e-5);
    EXPECT_LE(relative_error(values_of(y.depth), oracle_values(key + "/depth")), 1e-6);
    backward(add(y.kl, weighted_sum(y.depth, ddepth)));
    EXPECT_LE(relative_error(values_of(logits.grad()), oracle_values(key + "/dlogits")), 2e-5);
  }
}

// Both outputs in one scalar, so that both gradients arrive.
Op both_outputs(const DpmBins& bins, const DpmOptions& options, const Tensor& teacher) {
  return [=](const std::vector<Tensor>& in) {
    const Tensor target = to_device(teacher, in[0].device());
    const DpmOutput y = dpm_loss(in[0], target, bins, options);
    return add(y.kl, scale(mse_loss(y.depth, target), 0.1f));
  };
}

TEST(Dpm, Gradients) {
  const Tensor teacher = random_tensor({2, 3, 5}, 2, 1.5f, 5.5f);
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    DpmOptions options = options_of(c);
    options.first_row = 1;
    const std::vector<Tensor> inputs = {random_tensor({2, 3, 5, 12}, 1, -2.0f, 2.0f)};
    expect_gradients(both_outputs(kSmall, options, teacher), inputs, {}, {1e-2f, 1e-3});
    expect_same_on_devices(both_outputs(kSmall, options, teacher), inputs, {}, 1e-5);
  }
}

TEST(Dpm, Bf16LogitsGiveBf16Gradients) {
  const Tensor teacher = random_tensor({1, 4, 3}, 2, 1.5f, 5.5f);
  const Op op = both_outputs(kSmall, {}, teacher);
  const Tensor logits = to_bf16(random_tensor({1, 4, 3, 16}, 3, -2.0f, 2.0f));
  const OpResult rounded = evaluate(op, {logits}, {true}, Device::kCpu);
  const OpResult exact = evaluate(op, {tensor<float>(logits.shape(), values_of(logits))}, {true}, Device::kCpu);
  EXPECT_LE(relative_error(rounded.y, exact.y), 1e-6);
  EXPECT_LE(relative_error(rounded.gradients[0], exact.gradients[0]), 3e-3);
  expect_same_on_devices(op, {logits}, {}, 3e-3);
}

TEST(Dpm, DepthAlone) {
  const Op op = [](const std::vector<Tensor>& in) { return dpm_depth(in[0], kSmall); };
  const std::vector<Tensor> inputs = {random_tensor({2, 3, 5, 11}, 1, -2.0f, 2.0f)};
  expect_gradients(op, inputs, {}, {1e-2f, 1e-3});
  expect_same_on_devices(op, inputs, {}, 1e-5);
  const Tensor teacher = random_tensor({2, 3, 5}, 2, 1.5f, 5.5f);
  EXPECT_EQ(values_of(dpm_depth(inputs[0], kSmall)), values_of(dpm_loss(inputs[0], teacher, kSmall).depth));
}

// Forward and backward together hold a few maps of one float per pixel beside the logits, and the gradient is the
// logits' own storage.
TEST(Dpm, NeverHoldsASecondTensorOfTheLogitsSize) {
  for (const Device device : {Device::kCpu, Device::kCuda}) {
    if (device == Device::kCuda && !second_device()) continue;
    const Shape map{1, 16, 40};
    const Tensor teacher = to_device(random_tensor(map, 4, 1.0f, 79.0f), device);
    Tensor logits = to_device(random_tensor({1, 16, 40, 264}, 5, -3.0f, 3.0f), device);
    const auto step = [&] {
      Tensor x = logits.detach();
      x.set_requires_grad();
      const DpmOutput y = dpm_loss(x, teacher, kKitti, {.first_row = 3});
      const Tensor total = add(y.kl, ssim_loss(y.depth, teacher, {.first_row = 3}));
      backward(total);
      return x.grad();
    };
    step();  // the table of targets, scratch memory
    reset_peak_memory(device);
    const size_t before = memory_stats(device).in_use;
    const Tensor gradient = step();
    const size_t used = memory_stats(device).peak - before;
    EXPECT_EQ(gradient.raw(), logits.raw());
    // depth, lse, offset, SSIM's gradient; scratch and the sums besides.
    EXPECT_LE(used, 8 * static_cast<size_t>(map.numel()) * sizeof(float)) << name_of(device);
    EXPECT_LT(8 * static_cast<size_t>(map.numel()) * sizeof(float), logits.bytes() / 16);
  }
}

TEST(Dpm, SaysWhatItNeeds) {
  const Tensor logits = random_tensor({2, 3, 5, 11}, 1), teacher = random_tensor({2, 3, 5}, 2, 1.0f, 5.0f);
  EXPECT_THROW(dpm_loss(random_tensor({2, 3, 5, 10}, 1), teacher, kSmall), Error);
  EXPECT_THROW(dpm_loss(random_tensor({2, 3, 55}, 1), teacher, kSmall), Error);
  EXPECT_THROW(dpm_loss(logits, random_tensor({2, 5, 3}, 2), kSmall), Error);
  EXPECT_THROW(dpm_loss(logits, to_bf16(teacher), kSmall), Error);
  EXPECT_THROW(dpm_loss(logits, teacher, kSmall, {.first_row = 3}), Error);
  EXPECT_THROW(dpm_loss(logits, teacher, kSmall, {.sigma = 0.0f}), Error);
  EXPECT_THROW(dpm_loss(logits, teacher, kSmall, {.eps = -1.0f}), Error);
  EXPECT_THROW(dpm_depth(logits, {0, 1.0f, 2.0f}), Error);
}

}  // namespace
}  // namespace depthstill
