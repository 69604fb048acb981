// Plans of the simulated cuDNN as they run: what they ask of the pack of pointers, what they overwrite, and that they
// are computed by the strides and attributes of their descriptors.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/conv2d/cudnn/conv2d_graphs.h"
#include "kernels/core/runtime.h"
#include "kernels/cudnn/plan.h"
#include "tests/kernels/kernel_test.h"
#include "tests/libraries/candidates.h"

namespace depthstill::cudnn {
namespace {

using namespace kernel_test;

const Conv2dShape kShape = {.N = 1,
                            .H = 4,
                            .W = 5,
                            .C = 8,
                            .O = 16,
                            .R = 3,
                            .S = 3,
                            .pad_top = 1,
                            .pad_bottom = 1,
                            .pad_left = 1,
                            .pad_right = 1};
constexpr size_t kMap = 4 * 5;

class Plans : public ::testing::Test {
 protected:
  std::vector<Plan> offered(const Graph& graph, const LibraryOptions& options = {}) {
    return find_plans(current_target(cuda_stream()), graph, {.options = &options}).plans;
  }
  TensorPointers forward() { return {{kX, x.data()}, {kWeight, weight.data()}, {kY, y.data()}}; }
  std::string error_of(const Plan& plan, const TensorPointers& tensors, void* at) {
    try {
      plan.execute(cuda_stream(), tensors, at);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  const Graph plain = conv2d_graph(kShape, CUDNN_DATA_FLOAT, Pass::kForward);
  DeviceArray<float> x{random_values<float>(kMap * 8, 1)}, weight{random_values<float>(size_t{16 * 9 * 8}, 2)};
  DeviceArray<float> y{kMap * 16};
  DeviceArray<char> workspace{std::vector<char>(2 << 20, 1)};
};

TEST_F(Plans, OverwriteTheirWholeWorkspaceAndNoMore) {
  bool any = false;
  for (const Plan& plan : offered(plain)) {
    const std::vector<char> before(workspace.size(), 1);
    cuda::copy(workspace.data(), before.data(), before.size(), cuda::Direction::kToDevice, {});
    if (!error_of(plan, forward(), workspace.data()).empty()) continue;
    const std::vector<char> after = workspace.host();
    const auto kept = std::find(after.begin(), after.end(), 1);
    EXPECT_EQ(static_cast<size_t>(kept - after.begin()), plan.workspace_bytes());
    EXPECT_EQ(std::count(kept, after.end(), 1), after.end() - kept);
    any = any || plan.workspace_bytes() > 0;
  }
  EXPECT_TRUE(any);
}

TEST_F(Plans, CheckThePointers) {
  const std::vector<Plan> plans = offered(plain);
  const auto needs_workspace = [](const Plan& plan) { return plan.workspace_bytes() > 0; };
  const Plan& plan = *std::find_if(plans.begin(), plans.end(), needs_workspace);
  EXPECT_EQ(error_of(plan, forward(), workspace.data()), "");
  EXPECT_NE(error_of(plan, forward(), nullptr), "");
  EXPECT_NE(error_of(plan, forward(), workspace.data() + 1), "");
  TensorPointers tensors = forward();
  tensors.pop_back();
  EXPECT_NE(error_of(plan, tensors, workspace.data()), "") << "no y";
  tensors.emplace_back(kY, nullptr);
  EXPECT_NE(error_of(plan, tensors, workspace.data()), "") << "a null y";
  tensors.back().second = y.data() + 1;
  EXPECT_NE(error_of(plan, tensors, workspace.data()).find("aligned to 16"), std::string::npos);
  tensors.back().second = y.data();
  tensors.emplace_back(kBias, x.data());
  EXPECT_NE(error_of(plan, tensors, workspace.data()), "") << "not in the graph";
  tensors.back().first = kY;
  EXPECT_NE(error_of(plan, tensors, workspace.data()), "") << "twice";
}

TEST_F(Plans, SomeDoNotRun) {
  int failed = 0, ran = 0;
  for (const Plan& plan : offered(plain)) {
    const std::string error = error_of(plan, forward(), workspace.data());
    EXPECT_TRUE(error.empty() || error.find("CUDNN_STATUS_EXECUTION_FAILED") != std::string::npos) << error;
    ++(error.empty() ? ran : failed);
  }
  EXPECT_GE(ran, 5);
  EXPECT_EQ(failed, 1);
}

TEST_F(Plans, AnOutputThatIsAlsoAnInputIsLost) {
  const Graph graph = conv2d_epilogue_graph(kShape, CUDNN_DATA_FLOAT, {.residual = true});
  const Plan plan = std::move(offered(graph).front());
  DeviceArray<float> residual(random_values<float>(y.size(), 3));
  TensorPointers tensors = forward();
  tensors.emplace_back(kResidual, residual.data());
  plan.execute(cuda_stream(), tensors, workspace.data());
  for (const float v : y.host()) EXPECT_FALSE(std::isnan(v));
  tensors[2].second = residual.data();
  plan.execute(cuda_stream(), tensors, workspace.data());
  for (const float v : residual.host()) EXPECT_TRUE(std::isnan(v));
}

// It is not documented whether sums start from what lies there: there are engines of either kind.
TEST_F(Plans, SumsAreAssignedOrAdded) {
  const Graph graph = conv2d_gradient_below_graph(kShape, CUDNN_DATA_FLOAT, Activation::kRelu, true);
  const DeviceArray<float> dy(random_values<float>(y.size(), 3)), below(random_values<float>(x.size(), 4));
  std::vector<bool> adds;
  for (const Plan& plan : offered(graph)) {
    DeviceArray<float> du(x.size()), sums(std::vector<float>(8, 1000.0f));
    plan.execute(
        cuda_stream(),
        {{kX, du.data()}, {kWeight, weight.data()}, {kY, dy.data()}, {kActivated, below.data()}, {kSum, sums.data()}},
        workspace.data());
    double sum = 0.0;
    const std::vector<float> values = du.host();
    for (size_t i = 0; i < values.size(); i += 8) sum += to_double(values[i]);
    const double found = to_double(sums.host()[0]);
    adds.push_back(found > 500.0);
    EXPECT_NEAR(found, sum + (adds.back() ? 1000.0 : 0.0), 1e-3);
  }
  EXPECT_NE(std::count(adds.begin(), adds.end(), true), 0);
  EXPECT_NE(std::count(adds.begin(), adds.end(), false), 0);
}

TEST_F(Plans, AreMadeAgainFromTheirText) {
  const Target target = current_target(cuda_stream());
  for (const Plan& plan : offered(plain)) {
    const std::optional<Plan> again = Plan::from_json(target, plan.json());
    ASSERT_TRUE(again.has_value());
    EXPECT_EQ(again->json(), plan.json());
    EXPECT_EQ(again->workspace_bytes(), plan.workspace_bytes());
    EXPECT_EQ(error_of(*again, forward(), workspace.data()).empty(),
              error_of(plan, forward(), workspace.data()).empty());
    std::string other = plan.json();
    other[other.find("a1 b0")] = 'b';
    EXPECT_FALSE(Plan::from_json(target, other).has_value()) << "of a graph that nobody has described";
  }
}

// y = 2 * conv(x) + 3 * y over maps with gaps, channels first and filters turned around: nothing of which our graphs
// ask for, but what the descriptors say must count.
TEST_F(Plans, FollowStridesAndFactors) {
  constexpr int64_t kH = 4, kW = 5, kIn = 2, kOut = 3, kGap = 7;  // elements behind each row of x
  const auto describe = [](int64_t id, const std::vector<int64_t>& dims, const std::vector<int64_t>& strides) {
    Descriptor tensor(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    tensor.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_DATA_FLOAT)
        .set(CUDNN_ATTR_TENSOR_DIMENSIONS, dims)
        .set(CUDNN_ATTR_TENSOR_STRIDES, strides)
        .set(CUDNN_ATTR_TENSOR_UNIQUE_ID, id)
        .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, int64_t{16})
        .finalize();
    return tensor;
  };
  constexpr int64_t kRow = kW + kGap;
  const cudnnConvolutionMode_t mode = CUDNN_CONVOLUTION;
  Descriptor conv(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  conv.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT)
      .set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode)
      .set(CUDNN_ATTR_CONVOLUTION_DILATIONS, {1, 1})
      .set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, {2, 1})
      .set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, {1, 0})
      .set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, {0, 2})
      .set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, int64_t{2})
      .finalize();
  Descriptor op(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
  op.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
         describe(kX, {1, kIn, kH, kW}, {kIn * kH * kRow, kH * kRow, kRow, 1}))
      .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, describe(kWeight, {kOut, kIn, 2, 3}, {12, 6, 3, 1}))
      .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, describe(kY, {1, kOut, 2, 5}, {30, 10, 5, 1}))
      .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, conv)
      .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, 2.0f)
      .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, 3.0f)
      .finalize();
  Graph graph("of strange tensors");
  graph.add(std::move(op));

  const auto in = random_values<float>(kIn * kH * kRow, 1), filters = random_values<float>(36, 2);
  const auto before = random_values<float>(30, 3);
  std::vector<double> expected;
  for (int64_t i = 0; i < 30; ++i) {
    const int64_t o = i / 10, p = i / 5 % 2, q = i % 5;
    double sum = 0.0;
    for (int64_t t = 0; t < kIn * 6; ++t) {
      const int64_t c = t / 6, r = t / 3 % 2, s = t % 3, h = 2 * p - 1 + r, w = q + s;
      if (h < 0 || h >= kH || w >= kW) continue;
      sum += to_double(in[static_cast<size_t>((c * kH + h) * kRow + w)]) *
             to_double(filters[static_cast<size_t>(((o * kIn + c) * 2 + 1 - r) * 3 + 2 - s)]);
    }
    expected.push_back(2.0 * sum + 3.0 * to_double(before[static_cast<size_t>(i)]));
  }
  const DeviceArray<float> in_device(in), filters_device(filters);
  const LibraryOptions strict = test::strict_options();
  for (const Plan& plan : offered(graph, strict)) {
    DeviceArray<float> out(before);
    const TensorPointers tensors = {{kX, in_device.data()}, {kWeight, filters_device.data()}, {kY, out.data()}};
    if (error_of(plan, tensors, workspace.data()).empty()) {
      EXPECT_LE(max_relative_error(out.host(), expected), 1e-6);
    }
  }
}

// Work is done when the stream gets to it, by then with nothing left of plan and pack.
TEST_F(Plans, RunWhenTheStreamGetsThere) {
  const Stream stream = cuda_stream();
  const auto expected = [&] {
    offered(plain, test::strict_options()).front().execute(stream, forward(), workspace.data());
    return y.host();
  }();
  const std::vector<float> nothing(y.size(), -1.0f);
  cuda::copy(y.data(), nothing.data(), nothing.size() * sizeof(float), cuda::Direction::kToDevice, stream);
  cuda::synchronize(stream);
  cuda::begin_capture(stream);
  offered(plain, test::strict_options()).front().execute(stream, forward(), workspace.data());
  void* graph = cuda::end_capture(stream);
  EXPECT_EQ(y.host(), nothing);
  for (int replay = 0; replay < 2; ++replay) {
    cuda::copy(y.data(), nothing.data(), nothing.size() * sizeof(float), cuda::Direction::kToDevice, stream);
    cuda::launch_graph(graph, stream);
    EXPECT_EQ(y.host(), expected);
  }
  cuda::destroy_graph(graph);
}

}  // namespace
}  // namespace depthstill::cudnn
