// A NaN must survive what cuDNN fuses to a convolution as it survives our own kernels (kernels/conv2d/conv2d.h): a
// training step that is not finite must be noticed. These tests need a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/bias_activation.h"
#include "kernels/conv2d/cudnn/conv2d_graphs.h"
#include "kernels/core/error.h"
#include "kernels/core/runtime.h"
#include "kernels/cudnn/plan.h"

namespace depthstill::cudnn {
namespace {

const float kNan = std::numeric_limits<float>::quiet_NaN();

class DeviceMemory : public Scratch {
 public:
  DeviceMemory() = default;
  explicit DeviceMemory(size_t bytes) { get(bytes); }
  ~DeviceMemory() override {
    if (pointer_ != nullptr) cuda::free_device(pointer_);
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  void* get(size_t bytes) override {
    if (pointer_ != nullptr) cuda::free_device(pointer_);
    pointer_ = cuda::malloc_device(bytes + 256);
    check(pointer_ != nullptr, "device memory is full");
    return pointer_;
  }
  void* pointer() const { return pointer_; }

 private:
  void* pointer_ = nullptr;
};

template <class T>
struct Array : DeviceMemory {
  explicit Array(const std::vector<T>& values) : DeviceMemory(values.size() * sizeof(T)), size(values.size()) {
    cuda::copy(pointer(), values.data(), size * sizeof(T), cuda::Direction::kToDevice, {});
  }
  T* data() const { return static_cast<T*>(pointer()); }
  std::vector<float> host() const {
    std::vector<T> values(size);
    cuda::copy(values.data(), pointer(), size * sizeof(T), cuda::Direction::kToHost, {});
    cuda::synchronize({});
    std::vector<float> floats;
    for (const T value : values) floats.push_back(static_cast<float>(value));
    return floats;
  }
  size_t size;
};

template <class T>
class FusedNan : public ::testing::Test {
 protected:
  static constexpr cudnnDataType_t kType = std::is_same_v<T, float> ? CUDNN_DATA_FLOAT : CUDNN_DATA_BFLOAT16;
  static constexpr int64_t kHeight = 7, kWidth = 9, kChannels = 64;

  void SetUp() override {
    std::string reason;
    if (cuda::device_count(&reason) == 0) GTEST_SKIP() << "skipped: " << reason;
    shape_ = {1, kHeight, kWidth, kChannels, kChannels, 3, 3};
    shape_.pad_top = shape_.pad_bottom = shape_.pad_left = shape_.pad_right = 1;
  }

  // The values are uniform in [-1, 1).
  std::vector<T> random(int64_t count) {
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    std::vector<T> values;
    for (int64_t i = 0; i < count; ++i) values.push_back(static_cast<T>(uniform(generator_)));
    return values;
  }
  // The values are the same but for one pixel, in row 2 and column 3, whose channel 5 is NaN.
  std::vector<T> random_map_with_nan() {
    std::vector<T> map = random(kHeight * kWidth * kChannels);
    map[static_cast<size_t>((2 * kWidth + 3) * kChannels + 5)] = static_cast<T>(kNan);
    return map;
  }
  // Tells whether the filters carry that pixel to element i of a map.
  static bool near_nan(size_t i) {
    const int64_t pixel = static_cast<int64_t>(i) / kChannels;
    return std::abs(pixel / kWidth - 2) <= 1 && std::abs(pixel % kWidth - 3) <= 1;
  }

  // The result is false, and the test is skipped, where cuDNN has no such plan.
  bool run(const Graph& graph, std::initializer_list<std::pair<TensorId, const void*>> tensors) {
    const LibraryOptions options;
    const PlanOffer offer = find_plans(current_target(stream()), graph, {.options = &options, .limit = 1});
    if (offer.plans.empty()) return false;
    const DeviceMemory workspace(offer.plans[0].workspace_bytes());
    offer.plans[0].execute(stream(), tensors, workspace.pointer());
    cuda::synchronize(stream());
    return true;
  }
  Stream stream() { return {nullptr, &scratch_}; }

  Conv2dShape shape_;
  std::mt19937 generator_{7};
  DeviceMemory scratch_;
};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(FusedNan, Types);

TYPED_TEST(FusedNan, PassesTheReluOfTheForwardPass) {
  using T = TypeParam;
  const auto numbers = this->random(this->kChannels);
  std::vector<float> wide;
  for (const T value : numbers) wide.push_back(static_cast<float>(value));
  const Array<T> x(this->random_map_with_nan()), weight(this->random(9 * this->kChannels * this->kChannels));
  const Array<T> bias(numbers), fused(std::vector<T>(x.size)), apart(std::vector<T>(x.size));
  const Array<float> bias_float(wide);
  const Graph graph = conv2d_epilogue_graph(this->shape_, this->kType,
                                            {.bias = true, .bias_type = this->kType, .activation = Activation::kRelu});
  if (!this->run(graph, {{kX, x.data()}, {kWeight, weight.data()}, {kBias, bias.data()}, {kY, fused.data()}}))
    GTEST_SKIP() << "skipped: cuDNN has no plan for " << graph.name();
  ASSERT_TRUE(this->run(conv2d_graph(this->shape_, this->kType, Pass::kForward),
                        {{kX, x.data()}, {kWeight, weight.data()}, {kY, apart.data()}}));
  cuda::bias_activation(this->stream(), this->kHeight * this->kWidth, static_cast<int>(this->kChannels),
                        Activation::kRelu, bias_float.data(), apart.data());
  const std::vector<float> f = fused.host(), a = apart.host();
  int swallowed = 0;
  for (size_t i = 0; i < f.size(); ++i) {
    if (!this->near_nan(i)) continue;  // a plan that works in tiles may spread NaN further
    ASSERT_TRUE(std::isnan(a[i])) << "our own kernel, element " << i;
    swallowed += std::isnan(f[i]) ? 0 : 1;
  }
  EXPECT_EQ(swallowed, 0) << "of " << 9 * this->kChannels << " outputs that are NaN";
}

// The gradient that goes on through the relu below is NaN where its output x is positive, also in the sums, and, which
// our kernel does otherwise, 0 elsewhere.
TYPED_TEST(FusedNan, PassesTheReluBelowInTheBackwardPass) {
  using T = TypeParam;
  std::vector<T> below = this->random(this->kHeight * this->kWidth * this->kChannels);
  for (T& value : below) value = static_cast<T>(std::max(static_cast<float>(value), 0.0f));
  const Array<T> x(below), dy(this->random_map_with_nan());
  const Array<T> weight(this->random(9 * this->kChannels * this->kChannels));
  const Array<T> fused(std::vector<T>(x.size)), apart(std::vector<T>(x.size));
  const Array<float> sums(std::vector<float>(static_cast<size_t>(this->kChannels)));
  const Graph graph = conv2d_gradient_below_graph(this->shape_, this->kType, Activation::kRelu, true);
  if (!this->run(
          graph,
          {{kX, fused.data()}, {kWeight, weight.data()}, {kY, dy.data()}, {kActivated, x.data()}, {kSum, sums.data()}}))
    GTEST_SKIP() << "skipped: cuDNN has no plan for " << graph.name();
  ASSERT_TRUE(this->run(conv2d_graph(this->shape_, this->kType, Pass::kDataGradient),
                        {{kX, apart.data()}, {kWeight, weight.data()}, {kY, dy.data()}}));
  cuda::activation_grad<T>(this->stream(), static_cast<int64_t>(x.size), Activation::kRelu, x.data(), apart.data(),
                           nullptr, apart.data());
  const std::vector<float> f = fused.host(), a = apart.host(), input = x.host(), sum = sums.host();
  int swallowed = 0, not_zero = 0, swallowed_by_sums = 0;
  for (size_t i = 0; i < f.size(); ++i) {
    if (!this->near_nan(i)) continue;
    ASSERT_TRUE(std::isnan(a[i])) << "our own kernel, element " << i;
    if (input[i] > 0.0f) {
      swallowed += std::isnan(f[i]) ? 0 : 1;
      swallowed_by_sums += std::isnan(sum[i % sum.size()]) ? 0 : 1;
    } else {
      not_zero += f[i] == 0.0f ? 0 : 1;
    }
  }
  EXPECT_EQ(swallowed, 0) << "where x is positive";
  EXPECT_EQ(not_zero, 0) << "where x is 0";
  EXPECT_EQ(swallowed_by_sums, 0);
}

}  // namespace
}  // namespace depthstill::cudnn
