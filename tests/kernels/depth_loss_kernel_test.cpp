#include "kernels/depth_loss.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

struct Case {
  const char* name;
  DepthLossKind kind;
  DepthMapShape shape;
  bool mask;
};

const Case kCases[] = {
    {"SI, sparse", DepthLossKind::kSi, {2, 7, 11, 0}, true},
    {"SI, rows left out", DepthLossKind::kSi, {3, 5, 31, 2}, true},
    {"SI, all pixels", DepthLossKind::kSi, {1, 13, 47, 0}, false},
    {"SI, one pixel", DepthLossKind::kSi, {1, 1, 1, 0}, true},
    {"MSE", DepthLossKind::kMse, {2, 9, 31, 3}, true},
    {"MSE, all pixels", DepthLossKind::kMse, {2, 3, 5, 0}, false},
    {"L1", DepthLossKind::kL1, {1, 17, 33, 0}, true},
    {"L1, rows left out", DepthLossKind::kL1, {2, 4, 3, 1}, true},
};

struct Problem {
  std::vector<float> pred, target, dloss{0.7f};

  explicit Problem(const Case& c) {
    const auto n = static_cast<size_t>(c.shape.N * c.shape.H * c.shape.W);
    pred = random_values<float>(n, 1, 0.5f, 70.0f);
    target = random_values<float>(n, 2, 0.5f, 80.0f);
    if (!c.mask || n == 1) return;
    for (size_t i = 0; i < n; i += 3) target[i] = 0.0f;
    target[1] = std::numeric_limits<float>::quiet_NaN();
    target[2] = std::numeric_limits<float>::infinity();
    target[4] = -3.0f;
  }
};

bool counts(const Case& c, const Problem& p, size_t i) {
  const auto row = static_cast<int64_t>(i) / c.shape.W % c.shape.H;
  return row >= c.shape.first_row && (!c.mask || (p.target[i] > 0 && std::isfinite(p.target[i])));
}

double loss_of(const Case& c, const Problem& p, const std::vector<double>& pred) {
  std::vector<double> errors;
  for (size_t i = 0; i < pred.size(); ++i) {
    if (!counts(c, p, i)) continue;
    const double y = static_cast<double>(p.target[i]);
    errors.push_back(c.kind == DepthLossKind::kSi ? std::log(pred[i] + 1e-3) - std::log(y + 1e-3) : pred[i] - y);
  }
  const auto n = static_cast<double>(errors.size());
  double sum = 0, mean = 0, squares = 0;
  for (const double e : errors) {
    sum += c.kind == DepthLossKind::kMse ? e * e : std::abs(e);
    mean += e / n;
  }
  if (c.kind != DepthLossKind::kSi) return sum / n;
  for (const double e : errors) squares += (e - mean) * (e - mean);
  return std::sqrt((n > 1 ? squares / (n - 1) : 0) + 0.15 * mean * mean);
}

TEST(DepthLossKernel, MatchesTheFormulas) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const Problem p(c);
    const size_t n = p.pred.size();
    std::vector<double> pred(p.pred.begin(), p.pred.end()), gradient(n);
    const double loss = loss_of(c, p, pred);
    for (size_t i = 0; i < n; ++i) {
      const double at = pred[i], step = 1e-4;
      pred[i] = at + step;
      gradient[i] = loss_of(c, p, pred);
      pred[i] = at - step;
      gradient[i] = static_cast<double>(p.dloss[0]) * (gradient[i] - loss_of(c, p, pred)) / (2 * step);
      pred[i] = at;
    }
    const auto expect = [&](const std::vector<float>& result, const std::vector<float>& dpred) {
      EXPECT_NEAR(static_cast<double>(result[0]), loss, 2e-6 * loss);
      EXPECT_LE(max_relative_error(dpred, gradient), 1e-5);
      for (size_t i = 0; i < n; ++i) {
        if (!counts(c, p, i)) {
          EXPECT_EQ(dpred[i], 0.0f) << i;
        }
      }
    };
    auto result = nan_values<float>(4), dpred = nan_values<float>(n);
    cpu::depth_loss(cpu_stream(), c.kind, c.shape, c.mask, p.pred.data(), p.target.data(), result.data());
    cpu::depth_loss_grad(cpu_stream(), c.kind, c.shape, c.mask, p.pred.data(), p.target.data(), result.data(),
                         p.dloss.data(), dpred.data());
    expect(result, dpred);

    for_each_schedule([&] {
      const DeviceArray<float> x(p.pred), y(p.target), dloss(p.dloss);
      DeviceArray<float> device_result(4), device_dpred(n);
      cuda::depth_loss(cuda_stream(), c.kind, c.shape, c.mask, x.data(), y.data(), device_result.data());
      cuda::depth_loss_grad(cuda_stream(), c.kind, c.shape, c.mask, x.data(), y.data(), device_result.data(),
                            dloss.data(), device_dpred.data());
      expect(device_result.host(), device_dpred.host());
    });
  }
}

TEST(DepthLossKernel, DegenerateInputsGiveNoGradient) {
  const DepthMapShape shape{1, 2, 3, 0};
  const std::vector<float> pred(6, 4.0f), zeros(6, 0.0f), dloss{1.0f};
  for (const auto kind : {DepthLossKind::kSi, DepthLossKind::kMse, DepthLossKind::kL1}) {
    for (const auto& target : {zeros, pred}) {  // nothing counts; nothing is wrong
      auto result = nan_values<float>(4), dpred = nan_values<float>(6);
      cpu::depth_loss(cpu_stream(), kind, shape, true, pred.data(), target.data(), result.data());
      cpu::depth_loss_grad(cpu_stream(), kind, shape, true, pred.data(), target.data(), result.data(), dloss.data(),
                           dpred.data());
      EXPECT_EQ(result[0], 0.0f);
      EXPECT_EQ(dpred, zeros);
      const DeviceArray<float> x(pred), y(target), ddloss(dloss);
      DeviceArray<float> device_result(4), device_dpred(6);
      cuda::depth_loss(cuda_stream(), kind, shape, true, x.data(), y.data(), device_result.data());
      cuda::depth_loss_grad(cuda_stream(), kind, shape, true, x.data(), y.data(), device_result.data(), ddloss.data(),
                            device_dpred.data());
      EXPECT_EQ(device_result.host()[0], 0.0f);
      EXPECT_EQ(device_dpred.host(), zeros);
    }
  }
}

}  // namespace
}  // namespace depthstill
