#include "losses/tie_kd.h"

#include <cmath>
#include <limits>

#include "engine/ops.h"
#include "tests/ops/loss_oracle.h"

namespace depthstill {
namespace {

using namespace test;

constexpr DpmBins kNyu{49, 1e-3f, 10.0f}, kSmall{11, 1.0f, 6.0f};

// Logits are (N, H, W, bins), depth is (N, H, W).
Prediction prediction_of(const Tensor& output) {
  if (output.shape().rank() == 4) return DpmMap(output, kSmall);
  return output;
}

std::vector<std::string> part_names(const LossResult& result) {
  std::vector<std::string> names;
  for (const auto& part : result.parts) names.push_back(part.first);
  return names;
}

TEST(TieKd, TieKdMatchesPyTorch) {
  struct Row {
    const char* name;
    DpmTarget target;
    KlDirection kl;
    SsimMode mode;
  };
  for (const Row& row :
       {Row{"paper", DpmTarget::kMass, KlDirection::kStudentTeacher, SsimMode::kCentred},
        Row{"published", DpmTarget::kSoftmaxPdf, KlDirection::kTeacherStudent, SsimMode::kReference}}) {
    for (const bool cropped : {false, true}) {  // a model that computes all rows, or only those of the loss
      SCOPED_TRACE(::testing::Message() << row.name << (cropped ? ", cropped output" : ""));
      const std::string key = std::string("tie_kd/") + row.name;
      LossOptions options = named_loss("tie_kd", 0.1f, 10.0f);
      options.top_rows = 2;
      options.dpm = {.target = row.target, .kl = row.kl, .sigma = 0.5f};
      options.ssim_mode = row.mode;
      Tensor logits = oracle_tensor("tie_kd/logits");
      logits.set_requires_grad();
      // add() gives the loss storage of its own to consume.
      const Tensor output = cropped ? crop_rows(logits, 2, logits.size(1) - 2) : add(logits, zeros_like(logits));
      const LossResult result = tie_kd_loss(DpmMap(output, kNyu), oracle_tensor("tie_kd/teacher"), {}, options);
      EXPECT_EQ(part_names(result), (std::vector<std::string>{"dpm", "ssim"}));
      EXPECT_LE(relative_error(values_of(result.parts[0].second), oracle_values(key + "/dpm")), 5e-6);
      EXPECT_LE(relative_error(values_of(result.parts[1].second), oracle_values(key + "/ssim")), 5e-6);
      EXPECT_LE(relative_error(values_of(result.total), oracle_values(key + "/total")), 5e-6);
      backward(result.total);
      EXPECT_LE(relative_error(values_of(logits.grad()), oracle_values(key + "/dlogits")), 5e-5);
    }
  }
}

// Every row of the paper's Tables 1 and 4: which parts, with which weights, on which target.
TEST(TieKd, NamedLosses) {
  struct Row {
    const char* name;
    std::vector<std::pair<std::string, float>> parts;
    bool on_logits, on_truth;
  };
  const Row rows[] = {
      {"tie_kd", {{"dpm", 2.0f}, {"ssim", 6.0f}}, true, false},  // alpha 0.25, beta 8
      {"dpm", {{"dpm", 1.0f}}, true, false},
      {"depth", {{"ssim", 1.0f}}, true, false},
      {"res_kd_ssim", {{"ssim", 1.5f}}, false, false},
      {"res_kd_mse", {{"mse", 1.0f}}, false, false},
      {"res_kd_si", {{"si", 1.0f}}, false, false},
      {"res_kd_ssim_si", {{"ssim", 1.5f}, {"si", 1.0f}}, false, false},
      {"res_kd_ssim_mse", {{"ssim", 1.5f}, {"mse", 1.0f}}, false, false},
      {"l1", {{"l1", 1.0f}}, false, false},
      {"baseline", {{"si", 1.0f}}, false, true},
  };
  EXPECT_EQ(loss_names().size(), std::size(rows));
  const Tensor teacher = random_tensor({1, 4, 6}, 1, 1.5f, 5.5f), truth = random_tensor({1, 4, 6}, 2, 1.5f, 5.5f);
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    LossOptions options = named_loss(row.name, 0.25f, 8.0f);
    EXPECT_EQ(options.top_rows, 0);
    options.top_rows = row.on_logits ? 1 : 0;
    Tensor output = row.on_logits ? random_tensor({1, 4, 6, 11}, 3) : random_tensor({1, 4, 6}, 4, 1.0f, 6.0f);
    output.set_requires_grad();
    const LossResult result =
        tie_kd_loss(prediction_of(output), row.on_truth ? Tensor() : teacher, row.on_truth ? truth : Tensor(), options);
    float total = 0;
    ASSERT_EQ(result.parts.size(), row.parts.size());
    for (size_t i = 0; i < row.parts.size(); ++i) {
      EXPECT_EQ(result.parts[i].first, row.parts[i].first);
      EXPECT_GT(item(result.parts[i].second), 0.0f);
      total += row.parts[i].second * item(result.parts[i].second);
    }
    EXPECT_NEAR(item(result.total), total, 1e-6f * total);
    EXPECT_EQ(result.depth.shape(), (Shape{1, 4, 6}));
    backward(result.total);
    ASSERT_TRUE(output.grad().defined());
    const auto gradient = values_of(output.grad());
    EXPECT_GT(dot(gradient, gradient), 0.0);
  }
}

TEST(TieKd, HolesInTheTargetDoNotCount) {
  const Tensor pred = random_tensor({1, 5, 6}, 4, 1.0f, 6.0f);
  std::vector<float> depths = random_values(30, 5, 1.5f, 5.5f);
  depths[7] = 0.0f;
  const auto value = [&](float hole_prediction, bool mask) {
    auto moved = values_of(pred);
    moved[7] = hole_prediction;
    LossOptions options = named_loss("res_kd_ssim_mse");
    options.weights["l1"] = 0.5f;
    options.mask = mask;
    return item(tie_kd_loss(tensor<float>(pred.shape(), moved), tensor<float>({1, 5, 6}, depths), {}, options).total);
  };
  EXPECT_EQ(value(1.0f, true), value(5.0f, true));
  EXPECT_NE(value(1.0f, false), value(5.0f, false));
}

// A sky at 655.35 m, infinity, depths before the range and NaN are holes to every loss, with and without bins.
TEST(TieKd, WhatTheModelCannotPredictIsAHoleToEveryLoss) {
  std::vector<float> holes = random_values(2 * 5 * 6, 5, 1.5f, 5.5f), odd = holes;
  const float beyond[] = {655.35f, std::numeric_limits<float>::infinity(),
                          0.5f,    std::numeric_limits<float>::quiet_NaN(),
                          -1.0f,   std::nextafter(6.0f, 7.0f)};
  for (size_t i = 0; i < std::size(beyond); ++i) {
    holes[9 * i + 2] = 0.0f;
    odd[9 * i + 2] = beyond[i];
  }
  odd[4] = holes[4] = 6.0f;  // the ends of the range count
  odd[5] = holes[5] = 1.0f;
  const Shape map{2, 5, 6};
  for (const std::string& name : loss_names()) {
    SCOPED_TRACE(name);
    LossOptions options = named_loss(name);
    options.weights["l1"] = options.weights["huber"] = 0.5f;
    options.range = {kSmall.d_min, kSmall.d_max};
    const bool bins = options.weights.needs_bins();
    const auto outcome = [&](const std::vector<float>& target_values) {
      const Tensor leaf =
          (bins ? random_tensor({2, 5, 6, 11}, 3) : random_tensor(map, 4, 1.0f, 6.0f)).set_requires_grad();
      const Tensor output = add(leaf, zeros_like(leaf)), target = tensor<float>(map, target_values);
      const LossResult result = tie_kd_loss(prediction_of(output), target, target, options);
      backward(result.total);
      std::vector<float> values = values_of(leaf.grad());
      values.push_back(item(result.total));
      return values;
    };
    const std::vector<float> expected = outcome(holes);
    EXPECT_TRUE(std::isfinite(expected.back()) && expected.back() > 0);
    EXPECT_EQ(outcome(odd), expected);
    if (options.target == DepthTarget::kTruth || name == "res_kd_si") continue;
    // Without a mask every pixel counts, and a target beyond the range is its end.
    options.mask = false;
    std::vector<float> clamped = holes;
    for (const size_t i : {0u, 1u, 5u}) clamped[9 * i + 2] = 6.0f;
    clamped[9 * 2 + 2] = 0.5f;
    EXPECT_EQ(outcome(odd), outcome(clamped));
  }
}

TEST(TieKd, SaysWhatItNeeds) {
  const Tensor depth = random_tensor({1, 4, 6}, 1, 1.0f, 5.0f), logits = random_tensor({1, 4, 6, 11}, 2);
  EXPECT_THROW(named_loss("mse"), Error);
  const auto loss = [&](const Tensor& output, const Tensor& teacher, const char* name, int top_rows) {
    LossOptions options = named_loss(name);
    options.top_rows = top_rows;
    return tie_kd_loss(prediction_of(output), teacher, {}, options);
  };
  EXPECT_NO_THROW(loss(logits, depth, "tie_kd", 1));
  EXPECT_THROW(loss(depth, depth, "tie_kd", 1), Error);    // no logits
  EXPECT_THROW(loss(logits, {}, "tie_kd", 1), Error);      // no teacher
  EXPECT_THROW(loss(depth, depth, "baseline", 0), Error);  // no ground truth
  EXPECT_THROW(loss(logits, depth, "tie_kd", 4), Error);   // no row left
  EXPECT_THROW(loss(crop_rows(logits, 2, 2), depth, "tie_kd", 1), Error);
  LossOptions nothing = named_loss("res_kd_mse");
  nothing.weights["mse"] = 0.0f;
  EXPECT_THROW(tie_kd_loss(depth, depth, {}, nothing), Error);
}

}  // namespace
}  // namespace depthstill
