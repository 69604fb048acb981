// A training step carries more than TIE-KD's: several views, labels of a frozen network, several terms on one forward
// pass, learning rates by group; it is captured as a graph on the emulated device.
#include "engine/train/step.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/init.h"
#include "kernels/core/library_options.h"
#include "kernels/core/runtime.h"
#include "tests/ops/op_test.h"
#include "tests/with_options.h"

namespace depthstill {
namespace {

constexpr int64_t kH = 6, kW = 8;

// Two convolutions: a map (N, H, W) of an image (N, H, W, 3).
class TinyNet final : public Module {
 public:
  explicit TinyNet(uint64_t seed) {
    add_child("encoder", encoder_);
    add_child("head", head_);
    for (const StateEntry& entry : parameters()) uniform_fan_in(*entry.tensor, 27, seed, entry.name);
  }
  Tensor forward(const Tensor& image) const {
    const Tensor y = head_.forward(encoder_.forward(image));
    return reshape(y, {y.size(0), y.size(1), y.size(2)});
  }

 private:
  Conv2d encoder_{{3, 8, 3, 1, 1, true, Activation::kRelu}}, head_{{8, 1, 3}};
};

// mean |y - teacher(y)|, teacher 1 says twice as much, over the first view, and the mean square of the second one's
// map.
class TwoViews final : public Objective {
 public:
  explicit TwoViews(Device device) : student_(1), teacher_(2), labels_(zeros({2, kH, kW}, DType::kFloat, device)) {
    student_.to(device);
    teacher_.to(device);
  }
  Module& trained() override { return student_; }
  std::vector<ParameterGroup> groups() const override { return {{"encoder.", 0.0f}, {"", 4.0f}}; }
  void make_labels(std::span<const BatchTensors> views, int64_t teacher) override {
    ++labelled;
    EXPECT_FALSE(grad_enabled());
    const Tensor labels = teacher_.forward(views[0].image);
    copy_(labels_, teacher == 0 ? labels : scale(labels, 2.0f));
  }
  LossResult losses(std::span<const BatchTensors> views) override {
    ++forwards;
    const Tensor near = mean(abs(sub(student_.forward(views[0].image), labels_)));
    const Tensor small = mean(square(student_.forward(views[1].image)));
    return {add(near, scale(small, 0.5f)), {{"near", near.detach()}, {"small", small.detach()}}};
  }

  int labelled = 0, forwards = 0;

 private:
  TinyNet student_, teacher_;
  Tensor labels_;
};

BatchViews views_on(Device device) {
  return {{to_device(test::random_tensor({2, kH, kW, 3}, 1), device), {}, {}},
          {to_device(test::random_tensor({4, kH / 2, kW / 2, 3}, 2), device), {}, {}}};
}

struct Outcome {
  std::vector<std::vector<float>> parameters;
  std::vector<std::pair<std::string, double>> losses;
};

// Seven steps on images that change under the same addresses.
Outcome train(Device device, bool graph, int* forwards = nullptr) {
  TwoViews objective(device);
  TrainStep step(objective, {.optimiser = {.lr = 1e-2}, .device = device, .graph = graph});
  const BatchViews views = views_on(device);
  for (uint32_t i = 0; i < 7; ++i) {
    copy_(views[0].image, to_device(test::random_tensor({2, kH, kW, 3}, 10 + i), device));
    step.run(views, i % 2);
  }
  EXPECT_EQ(objective.labelled, 7);
  EXPECT_EQ(step.captured(), graph && device == Device::kCuda);
  if (forwards) *forwards = objective.forwards;
  Outcome run;
  run.losses = step.losses();
  for (const StateEntry& entry : objective.trained().parameters())
    run.parameters.push_back(to_vector<float>(to_device(*entry.tensor, Device::kCpu)));
  return run;
}

TEST(TrainStep, GroupsLearnAtRatesOfTheirOwn) {
  const Outcome run = train(Device::kCpu, true);
  const TinyNet fresh(1);
  const std::vector<StateEntry> before = fresh.parameters();
  ASSERT_EQ(before.size(), run.parameters.size());
  for (size_t i = 0; i < before.size(); ++i) {
    const bool frozen = before[i].name.starts_with("encoder.");
    EXPECT_EQ(to_vector<float>(*before[i].tensor) == run.parameters[i], frozen) << before[i].name;
  }
  ASSERT_EQ(run.losses.size(), 3u);
  EXPECT_EQ(run.losses[0].first, "total");
  EXPECT_EQ(run.losses[2].first, "small");
  EXPECT_NEAR(run.losses[0].second, run.losses[1].second + 0.5 * run.losses[2].second, 1e-6);
}

TEST(TrainStep, LabelsAndViewsChangeUnderAGraph) {
  if (!test::second_device()) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  LibraryOptions repeatable = library_options();
  repeatable.deterministic = true;
  const test::WithOptions with(repeatable);
  int eager = 0, captured = 0;
  const Outcome cpu = train(Device::kCpu, true), plain = train(Device::kCuda, false, &eager);
  cuda::set_pace(cuda::Pace::kWhenAwaited);
  const Outcome graph = train(Device::kCuda, true, &captured);
  cuda::set_pace(cuda::Pace::kAtOnce);
  EXPECT_EQ(graph.parameters, plain.parameters);
  EXPECT_EQ(graph.losses, plain.losses);
  EXPECT_EQ(eager, 7);
  EXPECT_EQ(captured, 4) << "the host's code runs no more once there is a graph";
  for (size_t i = 0; i < cpu.parameters.size(); ++i)
    EXPECT_LE(test::relative_error(plain.parameters[i], cpu.parameters[i]), 1e-4) << i;
}

TEST(TrainStep, OtherTensorsRunBesideTheGraph) {
  if (!test::second_device()) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  TwoViews objective(Device::kCuda);
  TrainStep step(objective, {.optimiser = {.lr = 1e-2}, .device = Device::kCuda});
  const BatchViews views = views_on(Device::kCuda), others = views_on(Device::kCuda);
  for (int i = 0; i < 5; ++i) step.run(views);
  ASSERT_TRUE(step.captured());
  const int before = objective.forwards;
  step.run_once(others);
  EXPECT_EQ(objective.forwards, before + 1);
  step.run(views);
  EXPECT_EQ(objective.forwards, before + 1);
  EXPECT_EQ(step.optimiser().updates(), 7);
}

TEST(TrainStep, PhasesAreToldInOrder) {
  TwoViews objective(Device::kCpu);
  std::vector<TrainStep::Phase> phases;
  TrainStep step(objective, {.after = [&](TrainStep::Phase phase) { phases.push_back(phase); }});
  step.run(views_on(Device::kCpu));
  // This objective does not say where its forward pass ends.
  EXPECT_EQ(phases, (std::vector{TrainStep::Phase::kLoss, TrainStep::Phase::kBackward, TrainStep::Phase::kUpdate}));
}

}  // namespace
}  // namespace depthstill
