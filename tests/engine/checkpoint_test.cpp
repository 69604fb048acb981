#include "engine/checkpoint.h"

#include <gtest/gtest.h>

#include <cmath>
#include <utility>

#include "engine/io/safetensors.h"
#include "tests/io/test_files.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using testing_files::error_of;
using testing_files::TemporaryFolder;

struct Net final : Module {
  explicit Net(int64_t width = 3) : conv({2, width, 3}), depthwise(width, 1, 2), norm(width) {
    add_child("a.conv", conv);
    add_child("a.depthwise", depthwise);
    add_child("a.bn", norm);
  }
  Conv2d conv;
  DepthwiseConv2d depthwise;
  BatchNorm2d norm;
};

void randomise(Module& module, uint32_t seed) {
  for (const StateEntry& e : module.state()) {
    if (e.tensor->dtype() == DType::kFloat)
      copy_(*e.tensor, test::random_tensor(e.tensor->shape(), seed++));
    else
      *e.tensor->data<int64_t>() = seed;
  }
}

void expect_equal(const Module& a, const Module& b) {
  const std::vector<StateEntry> x = a.state(), y = b.state();
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i].tensor->dtype() == DType::kFloat) {
      EXPECT_EQ(to_vector<float>(*x[i].tensor), to_vector<float>(*y[i].tensor)) << x[i].name;
    } else {
      EXPECT_EQ(to_vector<int64_t>(*x[i].tensor), to_vector<int64_t>(*y[i].tensor)) << x[i].name;
    }
  }
}

TEST(Checkpoint, RoundTripInPyTorchsForm) {
  const TemporaryFolder folder;
  const std::string path = folder / "net.safetensors";
  Net net, other;
  randomise(net, 1);
  const NamedTensor extra[] = {{"optimizer.step", tensor<float>({1}, std::vector<float>{4.0f})}};
  save_state(net, path, {{"epoch", "3"}}, extra);

  const SafetensorsFile file(path);
  EXPECT_EQ(file.metadata().at("epoch"), "3");
  EXPECT_EQ(file.at("a.conv.weight").shape, (std::vector<int64_t>{3, 2, 3, 3}));
  EXPECT_EQ(file.at("a.depthwise.weight").shape, (std::vector<int64_t>{3, 1, 3, 3}));
  EXPECT_EQ(file.at("a.bn.num_batches_tracked").type, StoredType::kI64);
  EXPECT_TRUE(file.at("a.bn.num_batches_tracked").shape.empty());

  const auto is_extra = [](const std::string& name) { return name.starts_with("optimizer."); };
  const LoadReport report = load_state(other, file, {.may_ignore = is_extra});
  EXPECT_EQ(report.ignored, std::vector<std::string>{"optimizer.step"});
  EXPECT_TRUE(report.missing.empty());
  expect_equal(net, other);
  EXPECT_EQ(to_vector<float>(load_tensor(file, "optimizer.step", {1})), std::vector<float>{4.0f});
}

TEST(Checkpoint, NarrowFloatsAreRounded) {
  const TemporaryFolder folder;
  const std::string path = folder / "net.safetensors";
  Net net, other;
  randomise(net, 1);
  for (const auto& [type, eps] : {std::pair(StoredType::kF16, 0x1p-11f), std::pair(StoredType::kBf16, 0x1p-8f)}) {
    save_state(net, path, {}, {}, type);
    const SafetensorsFile file(path);
    EXPECT_EQ(file.at("a.conv.weight").type, type);
    EXPECT_EQ(file.at("a.bn.num_batches_tracked").type, StoredType::kI64);
    load_state(other, file);
    const std::vector<float> x = to_vector<float>(net.conv.weight), y = to_vector<float>(other.conv.weight);
    for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(y[i], x[i], eps * std::abs(x[i]) + 0x1p-25f);
    EXPECT_NE(x, y);
  }
  EXPECT_THROW(save_state(net, path, {}, {}, StoredType::kF64), Error);
}

// What is not finite replaces nothing, whether it is a parameter, a statistic or a moment.
TEST(Checkpoint, WhatIsNotFiniteIsNotSaved) {
  const TemporaryFolder folder;
  const std::string path = folder / "net.safetensors";
  Net net, other;
  randomise(net, 1);
  const Tensor moment = tensor<float>({2}, std::vector<float>{1.0f, 2.0f});
  const NamedTensor extra[] = {{"optimizer.m.a", moment}};
  save_state(net, path, {}, extra);
  const auto refused = [&](const Tensor& tensor, const char* name, float value) {
    float& at = tensor.data<float>()[tensor.numel() - 1];
    const float before = std::exchange(at, value);
    testing_files::expect_clear(error_of([&] { save_state(net, path, {}, extra); }), name);
    EXPECT_NE(error_of([&] { save_state(net, path, {}, extra); }).find(path), std::string::npos);
    at = before;
  };
  refused(net.conv.weight, "'a.conv.weight'", NAN);
  refused(net.norm.running_var, "'a.bn.running_var'", INFINITY);
  refused(moment, "'optimizer.m.a'", -INFINITY);
  load_state(other, SafetensorsFile(path), {.may_ignore = [](const std::string&) { return true; }});
  expect_equal(net, other);
  EXPECT_EQ(first_non_finite(extra), "");
  moment.data<float>()[1] = NAN;
  EXPECT_EQ(first_non_finite(extra), "optimizer.m.a (2) holds nan");
}

TEST(Checkpoint, AnotherArchitectureIsNamed) {
  const TemporaryFolder folder;
  const std::string path = folder / "net.safetensors";
  Net net(3), wider(4), untouched(4);
  randomise(net, 1);
  save_state(net, path);
  const std::string message = error_of([&] { load_state(wider, path); });
  EXPECT_NE(message.find("net.safetensors: a.conv.weight: expected shape (4, 2, 3, 3), found (3, 2, 3, 3)"),
            std::string::npos)
      << message;
  expect_equal(wider, untouched);
}

TEST(Checkpoint, MissingAndUnknownKeys) {
  const TemporaryFolder folder;
  const std::string path = folder / "net.safetensors";
  Net net;
  Conv2d conv({2, 3, 3});
  randomise(net, 1);
  save_state(conv, path);
  std::string message = error_of([&] { load_state(net, path); });
  testing_files::expect_clear(message, "a.conv.weight");
  save_state(net, path);
  message = error_of([&] { load_state(conv, path, {.prefix = "a.conv."}); });
  EXPECT_NE(message.find("a.depthwise.weight of shape (3, 1, 3, 3) belongs to no layer"), std::string::npos) << message;
  const LoadReport report =
      load_state(conv, path, {.prefix = "a.conv.", .may_ignore = [](const std::string&) { return true; }});
  EXPECT_EQ(report.ignored.size(), 6u);
  EXPECT_EQ(to_vector<float>(conv.weight), to_vector<float>(net.conv.weight));
}

TEST(Checkpoint, BatchCountersAreOptional) {
  const TemporaryFolder folder;
  const std::string path = folder / "norm.safetensors";
  BatchNorm2d norm(2);
  const std::vector<float> ones = {1.0f, 2.0f};
  std::vector<TensorToStore> stored;
  for (const char* name : {"weight", "bias", "running_mean", "running_var"})
    stored.push_back({name, StoredType::kF32, {2}, ones.data()});
  write_safetensors(path, stored);
  EXPECT_EQ(load_state(norm, path).missing, std::vector<std::string>{"num_batches_tracked"});
  EXPECT_EQ(to_vector<float>(norm.running_var), ones);
}

}  // namespace
}  // namespace depthstill
