// Awkward maps with the losses' values and gradients in double: holes, ties, constants, empty contexts, few pixels,
// wide ranges. Each file of tests/oracle holds CASE/x, CASE/y, and CASE/OPTION/value and /dx; on every device.
#include <algorithm>
#include <cmath>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "engine/io/safetensors.h"
#include "engine/ops.h"
#include "engine/ops_loss.h"
#include "losses/distill_any_depth.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

DistillOptions options_of(const std::string& name) {
  DistillOptions options;
  options.lambda_grad = 0;
  if (name == "local") options.norm = ContextNorm::kLocal;
  if (name == "none") options.norm = ContextNorm::kNone;
  if (name.ends_with("global")) options.norm = ContextNorm::kGlobal;
  if (name == "quantile") options.contexts = ContextKind::kQuantile;
  if (name == "grid") options.contexts = ContextKind::kGrid;
  if (name == "trim") options.trim = 0.1;
  if (name.starts_with("reference")) options.reference = true;
  if (name == "detach_median") options.detach = ContextDetach::kMedian;
  if (name == "detach_both") options.detach = ContextDetach::kBoth;
  return options;
}

class Fixture {
 public:
  explicit Fixture(const std::string& name)
      : file_(concat_text(DEPTHSTILL_SOURCE_DIR, "/tests/oracle/", name, ".safetensors")) {}

  // With NaN where nothing is known.
  std::vector<float> values(const std::string& name) const {
    const StoredTensor& stored = file_.at(name);
    std::vector<float> values(static_cast<size_t>(stored.numel()));
    file_.read_bytes(stored, std::as_writable_bytes(std::span(values)));
    return values;
  }
  Tensor tensor_of(const std::string& name, Device device = Device::kCpu) const {
    Shape shape;
    for (const int64_t size : file_.at(name).shape) shape.push_back(size);
    return tensor<float>(shape, values(name), device);
  }
  // "CASE/OPTION" of every loss in the file.
  std::set<std::string> losses() const {
    std::set<std::string> names;
    for (const StoredTensor& stored : file_.tensors()) {
      const size_t at = stored.name.rfind("/value");
      if (at != std::string::npos) names.insert(stored.name.substr(0, at));
    }
    return names;
  }
  // The loss of the case's x, and its gradient, against the file's.
  void expect(const std::string& loss, const std::string& x_name, Device device,
              const std::function<Tensor(const Tensor& x)>& compute, const std::string& gradient = "/dx") const {
    SCOPED_TRACE(loss + " on " + name_of(device));
    Tensor x = tensor_of(x_name, device);
    x.set_requires_grad();
    const Tensor value = compute(x);
    backward(value);
    const float expected = values(loss + "/value")[0];
    EXPECT_NEAR(item(value), expected, 2e-6f * (1 + std::fabs(expected)));
    const std::vector<float> dx = values(loss + gradient), found = values_of(x.grad());
    ASSERT_EQ(found.size(), dx.size());
    float largest = 0, worst = 0;
    for (size_t i = 0; i < dx.size(); ++i) {
      largest = std::max(largest, std::fabs(dx[i]));
      worst = std::max(worst, std::fabs(found[i] - dx[i]));
    }
    EXPECT_LE(worst, 5e-6f * (largest > 0 ? largest : 1));
  }

 private:
  SafetensorsFile file_;
};

std::vector<Device> devices() {
  std::vector<Device> all = {Device::kCpu};
  if (second_device()) all.push_back(Device::kCuda);
  return all;
}

class ContextLossFixture : public testing::TestWithParam<const char*> {};

TEST_P(ContextLossFixture, ValuesAndGradients) {
  const Fixture fixture(GetParam());
  const std::set<std::string> losses = fixture.losses();
  EXPECT_GE(losses.size(), 5u);
  for (const Device device : devices()) {
    for (const std::string& loss : losses) {
      const size_t slash = loss.find('/');
      const std::string name = loss.substr(0, slash);
      const DistillOptions options = options_of(loss.substr(slash + 1));
      const Tensor y = fixture.tensor_of(name + "/y", device);
      fixture.expect(loss, name + "/x", device,
                     [&](const Tensor& x) { return cross_context_loss(x, y, options).total; });
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Files, ContextLossFixture,
                         testing::Values("context_loss_maps", "context_loss_masks", "context_loss_values"),
                         [](const auto& file) { return std::string(file.param); });

TEST(GradientLossFixture, ValuesAndGradients) {
  const Fixture fixture("gradient_loss");
  for (const Device device : devices()) {
    for (const std::string& loss : fixture.losses()) {
      const std::string name = loss.substr(0, loss.find('/'));
      if (!loss.ends_with("/scales4")) continue;  // the others have no gradient, or are not normalised
      const Tensor y = fixture.tensor_of(name + "/y", device);
      fixture.expect(loss, name + "/x", device,
                     [&](const Tensor& x) { return gradient_matching(x, y, context_statistics(x, y)); });
    }
  }
}

TEST(LocalGlobalFixture, WindowsValuesAndGradients) {
  const Fixture fixture("local_global");
  std::vector<int32_t> numbers;
  for (const float value : fixture.values("windows")) numbers.push_back(static_cast<int32_t>(value));
  for (const Device device : devices()) {
    const Tensor windows = to_device(tensor<int32_t>({8, 4}, numbers), device);
    const Tensor maps = fixture.tensor_of("patches", device);
    Tensor x = fixture.tensor_of("x", device);
    x.set_requires_grad();
    const Tensor sampled = resize_windows(x, windows, 42);
    EXPECT_LE(relative_error(values_of(sampled), fixture.values("sampled")), 1e-6);
    backward(sampled, fixture.tensor_of("dsampled", device));
    EXPECT_LE(relative_error(values_of(x.grad()), fixture.values("dsampled/dx")), 1e-6);

    DistillOptions options;
    options.lambda_sc = options.lambda_grad = 0;
    options.lambda_lg = 1;
    const Tensor whole = fixture.tensor_of("x", device);  // L_sc and L_grad are left out
    fixture.expect("range", "x", device, [&](const Tensor& map) {
      return cross_context_loss(map, whole, options, {maps, windows}).total;
    });
  }
}

TEST(FeatureLossFixture, ValuesAndGradients) {
  const Fixture fixture("feature_loss");
  for (const Device device : devices()) {
    const Tensor g = fixture.tensor_of("g", device);
    for (const auto& [name, alpha] : {std::pair("alpha0", -10.0f), std::pair("alpha15", 0.15f)}) {
      const float margin = alpha;
      fixture.expect(
          name, "f", device, [&](const Tensor& f) { return feature_cosine(f, g, margin); }, "/df");
    }
  }
}

}  // namespace
}  // namespace depthstill
