// Ten training steps of Distill Any Depth on a tiny Depth Anything network against float64
// (tests/oracle/dad_step.json): all losses of Eq. 9, a frozen encoder, two learning rates, clipping. Where a difference
// of maps is near 0, fp32 and fp64 give its sign differently from the fourth step on, and runs part.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "engine/train/step.h"
#include "losses/distill_any_depth.h"
#include "models/depth_anything.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using test::second_device;

constexpr size_t kSide = 70;

// Uniform in [-1, 1): the numbers of both sides come from the same integers.
double hash(uint64_t t, uint64_t i) {
  auto x = static_cast<uint32_t>(i * 2654435761u + t * 40503u + 12345u);
  x ^= x >> 16;
  x *= 0x85EBCA6Bu;
  x ^= x >> 13;
  return static_cast<double>(x) * 0x1p-31 - 1;
}

float initial(const std::string& name, double u, const Shape& file) {
  double value = u * std::sqrt(3.0 * static_cast<double>(file[0]) / static_cast<double>(file.numel()));
  if (name.ends_with("gamma")) {
    value = 0.5 + 0.1 * u;
  } else if (name.find("norm") != std::string::npos && name.ends_with("weight")) {
    value = 1 + 0.1 * u;
  } else if (name.ends_with("pos_embed") || name.ends_with("cls_token")) {
    value = 0.2 * u;
  } else if (name.ends_with("bias")) {
    value = 0.1 * u;
  }
  return static_cast<float>(value);
}

// A parameter's values in the order of published files; t is its number among all published names.
std::vector<float> initial_values(const std::string& name, const Shape& file, uint64_t t) {
  std::vector<float> values(static_cast<size_t>(file.numel()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = initial(name, hash(t, i), file);
  return values;
}

// Half of the student's weights where `frozen`, and half of another draw's.
std::unique_ptr<DepthAnything> make_network(bool frozen) {
  const DepthAnythingConfig tiny{{.dim = 48, .depth = 4, .heads = 3, .taps = {0, 1, 2, 3}, .grid = 4},
                                 {.dim = 48, .features = 16, .out_channels = {8, 12, 16, 24}}};
  auto network = std::make_unique<DepthAnything>("tiny", tiny, ModelOptions{.head = Head::kRelative});
  const std::vector<StateEntry> state = network->state();
  std::set<std::string> names;
  for (const StateEntry& entry : state) names.insert(entry.name);
  for (const std::string& name : network->dead_parameter_names()) names.insert(name);
  for (const StateEntry& entry : state) {
    const auto t = static_cast<uint64_t>(std::distance(names.begin(), names.find(entry.name)));
    const Shape file = to_file_shape(entry.tensor->shape(), entry.layout);
    std::vector<float> values = initial_values(entry.name, file, t);
    if (frozen) {
      const std::vector<float> other = initial_values(entry.name, file, t + 500);
      for (size_t i = 0; i < values.size(); ++i) values[i] = 0.5f * values[i] + 0.5f * other[i];
    }
    copy_(*entry.tensor, from_file_layout(tensor<float>(file, values), entry.layout));
  }
  return network;
}

BatchViews make_batch(Device device) {
  constexpr size_t kPixels = kSide * kSide;
  std::vector<float> images(2 * kPixels * 3), regions, patches;
  for (size_t n = 0; n < 2; ++n) {
    for (size_t i = 0; i < kPixels; ++i) {
      const size_t row = i / kSide, column = i % kSide;
      const auto r = static_cast<double>(row), c = static_cast<double>(column);
      for (size_t k = 0; k < 3; ++k) {
        images[(n * kPixels + i) * 3 + k] = static_cast<float>(2 * hash(1000 + 10 * n + k, i));
      }
      const bool disc = (r - 30) * (r - 30) + (c - 40) * (c - 40) < 300;
      regions.push_back(static_cast<float>(3 + std::sin(0.11 * r + static_cast<double>(n)) + std::cos(0.13 * c) +
                                           (disc ? 1.5 : 0.0)));
    }
  }
  for (size_t k = 0; k < 4; ++k) {
    for (size_t i = 0; i < kPixels; ++i) {
      const size_t row = i / kSide, column = i % kSide;
      const auto r = static_cast<double>(row), c = static_cast<double>(column);
      patches.push_back(static_cast<float>(2 + std::sin(0.05 * r + 0.7 * static_cast<double>(k)) + std::cos(0.07 * c) +
                                           (r + c > 80 ? 1.0 : 0.0)));
    }
  }
  const std::vector<int32_t> windows = {0, 0, 0, 81, 0, 11, 11, 81, 1, 0, 20, 90, 1, 20, 3, 90};
  BatchTensors batch;
  batch.image = tensor<float>({2, kSide, kSide, 3}, images, device);
  batch.teacher = tensor<float>({2, kSide, kSide}, regions, device);
  batch.patches = tensor<float>({4, kSide, kSide}, patches, device);
  batch.windows = tensor<int32_t>({4, 4}, windows, device);
  return {batch};
}

// Norm, and the sum of value * (1 + index mod 7), of every parameter.
void expect_parameters(const DepthAnything& network, const nlohmann::json& expected) {
  for (const StateEntry& entry : network.parameters()) {
    const Tensor stored = to_file_layout(to_device(entry.tensor->detach(), Device::kCpu), entry.layout);
    double squares = 0, sum = 0;
    const std::vector<float> values = to_vector<float>(stored);
    for (size_t i = 0; i < values.size(); ++i) {
      const auto value = static_cast<double>(values[i]);
      squares += value * value;
      sum += value * static_cast<double>(1 + i % 7);
    }
    const double norm = expected.at(entry.name).at(0).get<double>();
    EXPECT_NEAR(std::sqrt(squares), norm, 1e-5 * norm) << entry.name;
    EXPECT_NEAR(sum, expected.at(entry.name).at(1).get<double>(), 5e-4 * norm) << entry.name;
  }
}

void expect_steps(Device device, int steps) {
  SCOPED_TRACE(name_of(device));
  std::ifstream file(DEPTHSTILL_SOURCE_DIR "/tests/oracle/dad_step.json");
  const nlohmann::json expected = nlohmann::json::parse(file);
  const std::unique_ptr<DepthAnything> student = make_network(false);
  const std::shared_ptr<DepthAnything> frozen = make_network(true);
  student->to(device);
  frozen->to(device);
  DistillAnyDepth objective(*student, {}, {{"pretrained.", 0.1f}, {"depth_head.", 1.0f}},
                            {.encoder = {frozen, &frozen->encoder()}});
  TrainStep::Options options{.device = device};
  options.optimiser.lr = 1e-3;
  options.optimiser.params = {.beta1 = 0.9f, .beta2 = 0.999f, .weight_decay = 0.01f};
  options.optimiser.clip_norm = 1.0f;
  TrainStep step(objective, options);
  const BatchViews batch = make_batch(device);
  for (int t = 1; t <= steps; ++t) {
    SCOPED_TRACE(t);
    step.run(batch);
    const nlohmann::json& now = expected.at("steps").at(static_cast<size_t>(t - 1));
    for (const auto& [name, value] : step.losses()) {
      const double want = now.at(name).get<double>();
      if (t > 3 && name != "total") continue;
      EXPECT_NEAR(value, want, (t <= 3 ? 1e-5 : 0.03) * (1 + want)) << name;
    }
    if (t > 2) continue;
    const auto norm = static_cast<double>(step.optimiser().last_step().grad_norm);
    EXPECT_NEAR(norm, now.at("norm").get<double>(), 1e-5 * norm);
    expect_parameters(*student, expected.at(concat_text("after_", t)));
  }
}

TEST(DistillAnyDepthStep, IsThatOfFloat64) {
  second_device();  // both in fp32
  expect_steps(Device::kCpu, 10);
}

TEST(DistillAnyDepthStep, IsThatOfFloat64OnDevice) {
  if (!second_device()) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  expect_steps(Device::kCuda, 3);
}

}  // namespace
}  // namespace depthstill
