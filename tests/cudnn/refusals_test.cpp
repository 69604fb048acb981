// These tests ask what cuDNN refuses when a descriptor is filled and finalised. They need no GPU; in builds without
// CUDA it is the simulation (kernels/simt/libraries) that has to refuse the same.
#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/cudnn/graph.h"
#include "kernels/cudnn/h100.h"

namespace depthstill::cudnn {
namespace {

using Dims = std::vector<int64_t>;

struct TensorSpec {
  int64_t id = 1;
  Dims dims = {2, 8, 5, 6}, strides = {240, 1, 48, 8};
  int64_t alignment = 16;
  bool is_virtual = false;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
};

Descriptor make(const TensorSpec& spec) {
  Descriptor tensor(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  tensor.set(CUDNN_ATTR_TENSOR_DATA_TYPE, spec.type)
      .set(CUDNN_ATTR_TENSOR_DIMENSIONS, spec.dims)
      .set(CUDNN_ATTR_TENSOR_STRIDES, spec.strides)
      .set(CUDNN_ATTR_TENSOR_UNIQUE_ID, spec.id)
      .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, spec.alignment);
  if (spec.is_virtual) tensor.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, true);
  tensor.finalize();
  return tensor;
}

Descriptor channels_last(int64_t id, int64_t n, int64_t c, int64_t h, int64_t w) {
  return make({.id = id, .dims = {n, c, h, w}, .strides = {h * w * c, 1, w * c, c}});
}
Descriptor intermediate(int64_t id, int64_t n, int64_t c, int64_t h, int64_t w) {
  return make({.id = id, .dims = {n, c, h, w}, .strides = {h * w * c, 1, w * c, c}, .is_virtual = true});
}

Descriptor convolution() {
  const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  Descriptor conv(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  conv.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT)
      .set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode)
      .set(CUDNN_ATTR_CONVOLUTION_DILATIONS, {1, 1})
      .set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, {1, 1})
      .set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, {1, 1})
      .set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, {1, 1})
      .set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, int64_t{2})
      .finalize();
  return conv;
}

Descriptor forward(const Descriptor& x, const Descriptor& w, const Descriptor& y) {
  Descriptor op(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
  op.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x)
      .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, w)
      .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y)
      .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, convolution())
      .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, 1.0f)
      .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, 0.0f)
      .finalize();
  return op;
}

Descriptor pointwise_function(cudnnPointwiseMode_t mode) {
  Descriptor function(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  function.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode)
      .set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT)
      .finalize();
  return function;
}

using Operand = std::pair<cudnnBackendAttributeName_t, const Descriptor*>;
Descriptor pointwise(cudnnPointwiseMode_t mode, const std::vector<Operand>& operands) {
  Descriptor op(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, pointwise_function(mode));
  for (const auto& [name, tensor] : operands) op.set(name, *tensor);
  op.finalize();
  return op;
}

Descriptor graph(const std::vector<cudnnBackendDescriptor_t>& operations) {
  Descriptor made(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  made.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<int64_t>(operations.size()),
           operations.data())
      .finalize();
  return made;
}

class CudnnRefuses : public ::testing::Test {
 protected:
  Descriptor x = channels_last(1, 2, 8, 5, 6), weight = channels_last(2, 16, 8, 3, 3);
  Descriptor y = channels_last(3, 2, 16, 5, 6), bias = channels_last(4, 1, 16, 1, 1);
  Descriptor sum = intermediate(5, 2, 16, 5, 6);
};

TEST_F(CudnnRefuses, TensorsThatMakeNoSense) {
  EXPECT_NO_THROW(make({}));
  EXPECT_THROW(make({.strides = {240, 1, -48, 8}}), Error);
  EXPECT_THROW(make({.dims = {2, 8, -5, 6}}), Error);
  EXPECT_THROW(make({.strides = {240, 1, 48}}), Error);
  EXPECT_THROW(make({.alignment = 0}), Error);
  EXPECT_THROW(make({.alignment = 3}), Error);
}

TEST_F(CudnnRefuses, TensorsThatLackSomething) {
  const auto with = [](bool dims, bool strides, bool alignment) {
    Descriptor tensor(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    tensor.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_DATA_FLOAT).set(CUDNN_ATTR_TENSOR_UNIQUE_ID, int64_t{1});
    if (dims) tensor.set(CUDNN_ATTR_TENSOR_DIMENSIONS, {2, 8, 5, 6});
    if (strides) tensor.set(CUDNN_ATTR_TENSOR_STRIDES, {240, 1, 48, 8});
    if (alignment) tensor.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, int64_t{16});
    return tensor.try_finalize();
  };
  EXPECT_TRUE(with(true, true, true));
  EXPECT_FALSE(with(false, true, true));
  EXPECT_FALSE(with(true, false, true));
  EXPECT_FALSE(with(true, true, false));
}

TEST_F(CudnnRefuses, AttributesOfTheWrongKindOrAtTheWrongTime) {
  EXPECT_THROW(x.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, int64_t{9}), Error) << "finalised already";
  EXPECT_FALSE(x.try_finalize());
  Descriptor tensor(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  const int64_t ids[] = {1, 2};
  EXPECT_THROW(tensor.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_FLOAT, 1, ids), Error);
  EXPECT_THROW(tensor.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 2, ids), Error);
  EXPECT_THROW(tensor.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, nullptr), Error);
  EXPECT_THROW(tensor.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, int64_t{2}), Error) << "of another descriptor";
  int64_t id = 0, count = 0;
  EXPECT_NE(cudnnBackendGetAttribute(tensor.get(), CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &count, &id),
            CUDNN_STATUS_SUCCESS)
      << "not finalised yet";
}

TEST_F(CudnnRefuses, ConvolutionsThatLackSomething) {
  const std::array<cudnnBackendAttributeName_t, 2> pairs = {CUDNN_ATTR_CONVOLUTION_DILATIONS,
                                                            CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES};
  for (const cudnnBackendAttributeName_t missing : pairs) {
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    Descriptor conv(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    conv.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT)
        .set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode)
        .set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, {1, 1})
        .set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, {1, 1})
        .set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, int64_t{2});
    for (const cudnnBackendAttributeName_t name : pairs) {
      if (name != missing) conv.set(name, {1, 1});
    }
    EXPECT_FALSE(conv.try_finalize()) << missing;
  }
  const Descriptor conv = convolution();
  for (const int missing : {0, 1, 2, 3}) {
    Descriptor op(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    op.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, 1.0f)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, 0.0f);
    if (missing != 0) op.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x);
    if (missing != 1) op.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, weight);
    if (missing != 2) op.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y);
    if (missing != 3) op.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, conv);
    EXPECT_FALSE(op.try_finalize()) << missing;
  }
}

TEST_F(CudnnRefuses, ConvolutionsWhoseSizesDisagree) {
  EXPECT_NO_THROW(forward(x, weight, y));
  EXPECT_THROW(forward(x, weight, channels_last(3, 2, 16, 5, 5)), Error);
  EXPECT_THROW(forward(x, weight, channels_last(3, 3, 16, 5, 6)), Error);
  EXPECT_THROW(forward(x, weight, channels_last(3, 2, 15, 5, 6)), Error);
  EXPECT_THROW(forward(x, channels_last(2, 16, 5, 3, 3), y), Error);
  EXPECT_THROW(forward(x, channels_last(2, 16, 8, 9, 3), y), Error) << "larger than the map";
}

TEST_F(CudnnRefuses, OperationsThatLackATensor) {
  constexpr auto kX = CUDNN_ATTR_OPERATION_POINTWISE_XDESC, kB = CUDNN_ATTR_OPERATION_POINTWISE_BDESC,
                 kY = CUDNN_ATTR_OPERATION_POINTWISE_YDESC, kDy = CUDNN_ATTR_OPERATION_POINTWISE_DYDESC,
                 kDx = CUDNN_ATTR_OPERATION_POINTWISE_DXDESC;
  EXPECT_NO_THROW(pointwise(CUDNN_POINTWISE_ADD, {{kX, &sum}, {kB, &bias}, {kY, &y}}));
  EXPECT_THROW(pointwise(CUDNN_POINTWISE_ADD, {{kX, &sum}, {kY, &y}}), Error);
  EXPECT_THROW(pointwise(CUDNN_POINTWISE_ADD, {{kX, &sum}, {kB, &bias}}), Error);
  EXPECT_NO_THROW(pointwise(CUDNN_POINTWISE_RELU_BWD, {{kDy, &sum}, {kX, &y}, {kDx, &y}}));
  EXPECT_THROW(pointwise(CUDNN_POINTWISE_RELU_BWD, {{kX, &sum}, {kY, &y}}), Error);
  EXPECT_THROW(pointwise(CUDNN_POINTWISE_RELU_BWD, {{kDy, &sum}, {kDx, &y}}), Error);
}

TEST_F(CudnnRefuses, GraphsThatContradictThemselves) {
  const Descriptor to_sum = forward(x, weight, sum), to_y = forward(x, weight, y), again = forward(x, weight, y);
  const auto add = [&](const Descriptor& from) {
    return pointwise(CUDNN_POINTWISE_ADD, {{CUDNN_ATTR_OPERATION_POINTWISE_XDESC, &from},
                                           {CUDNN_ATTR_OPERATION_POINTWISE_BDESC, &bias},
                                           {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, &y}});
  };
  const Descriptor added = add(sum);
  EXPECT_NO_THROW(graph({to_sum.get(), added.get()}));
  EXPECT_NO_THROW(graph({added.get(), to_sum.get()})) << "the order is free";
  EXPECT_THROW(graph({to_y.get(), to_y.get()}), Error);
  EXPECT_THROW(graph({to_y.get(), again.get()}), Error) << "two write y";
  const Descriptor other = make(
      {.id = 5, .dims = {2, 16, 5, 6}, .strides = {480, 1, 96, 16}, .is_virtual = true, .type = CUDNN_DATA_BFLOAT16});
  const Descriptor from_other = add(other);
  EXPECT_THROW(graph({to_sum.get(), from_other.get()}), Error) << "one id for two tensors";
}

TEST_F(CudnnRefuses, DevicesAndPlansThatAreNotDescribed) {
  const auto accepts = [](const std::string& json) {
    Descriptor device(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    device.set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, static_cast<int64_t>(json.size()) + 1,
               json.c_str());
    return device.try_finalize();
  };
  EXPECT_TRUE(accepts(kH100));
  EXPECT_FALSE(accepts("{}"));
  Descriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  EXPECT_FALSE(plan.try_finalize());
}

}  // namespace
}  // namespace depthstill::cudnn
