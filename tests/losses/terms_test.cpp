// The table of terms, and the one that is composed of ops against a reference in double.
#include "losses/terms.h"

#include <cmath>

#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

const Term& term(std::string_view name) {
  for (const Term& t : loss_terms()) {
    if (t.name == name) return t;
  }
  fail("no term ", name);
}

TEST(Terms, WeightsAreByName) {
  TermWeights weights;
  for (const Term& t : loss_terms()) EXPECT_EQ(weights[t.name], 0.0f) << t.name;
  EXPECT_FALSE(weights.needs_bins() || weights.needs_depth());
  weights["ssim"] = 2.0f;
  EXPECT_TRUE(weights.needs_depth());
  EXPECT_FALSE(weights.needs_bins());
  weights["dpm"] = 1.0f;
  EXPECT_TRUE(weights.needs_bins());
  EXPECT_EQ(weights["ssim"], 2.0f);
  EXPECT_THROW(weights["mae"], Error);
}

// Errors on both sides of delta, targets without depth, rows that are left out; once without a mask.
TEST(Terms, HuberIsItsFormula) {
  const int64_t rows = 6, columns = 7, first_row = 2;
  const std::vector<float> target = [] {
    std::vector<float> values = random_values(2 * 6 * 7, 2, 1.0f, 9.0f);
    for (size_t i = 0; i < values.size(); i += 5) values[i] = 0.0f;
    return values;
  }();
  const std::vector<float> pred = random_values(2 * 6 * 7, 1, 0.5f, 9.5f);
  for (const Device device : {Device::kCpu, Device::kCuda}) {
    if (device == Device::kCuda && !second_device()) continue;
    for (const float delta : {0.7f, 3.0f}) {
      for (const bool mask : {false, true}) {
        SCOPED_TRACE(::testing::Message() << name_of(device) << ", delta " << delta << (mask ? ", masked" : ""));
        double sum = 0, count = 0;
        std::vector<double> slopes(pred.size(), 0.0);
        for (size_t i = 0; i < pred.size(); ++i) {
          if (static_cast<int64_t>(i) / columns % rows < first_row || (mask && target[i] <= 0.0f)) continue;
          const double e = static_cast<double>(pred[i]) - static_cast<double>(target[i]);
          const double d = static_cast<double>(delta), size = std::abs(e);
          sum += size <= d ? 0.5 * e * e : d * (size - 0.5 * d);
          slopes[i] = size <= d ? e : e < 0 ? -d : d;
          count += 1;
        }
        Tensor depth = to_device(tensor<float>({2, rows, columns}, pred), device);
        depth.set_requires_grad();
        TermOptions options;
        options.huber_delta = delta;
        const Prediction prediction(depth);
        TermInput input(prediction, to_device(tensor<float>({2, rows, columns}, target), device), mask, first_row,
                        options, DpmHeadWay::kStored);
        const Tensor loss = term("huber").loss(input);
        EXPECT_NEAR(static_cast<double>(item(loss)), sum / count, 1e-6 * sum / count);
        backward(loss);
        const std::vector<float> gradient = values_of(depth.grad());
        for (size_t i = 0; i < slopes.size(); ++i)
          EXPECT_NEAR(static_cast<double>(gradient[i]), slopes[i] / count, 1e-6) << i;
      }
    }
  }
}

}  // namespace
}  // namespace depthstill
