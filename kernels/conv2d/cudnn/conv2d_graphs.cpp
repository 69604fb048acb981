#include "kernels/conv2d/cudnn/conv2d_graphs.h"

#include <string>

#include "kernels/core/error.h"

namespace depthstill::cudnn {
namespace {

TensorSize size_of_x(const Conv2dShape& s) { return {s.N, s.C, s.H, s.W}; }
TensorSize size_of_weight(const Conv2dShape& s) { return {s.O, s.C, s.R, s.S}; }
TensorSize size_of_y(const Conv2dShape& s) { return {s.N, s.O, s.P(), s.Q()}; }
TensorSize per_channel(int64_t channels) { return {1, channels, 1, 1}; }

std::string describe(const char* what, const Conv2dShape& s) {
  return concat_text("conv2d ", what, " of (", s.N, ", ", s.H, ", ", s.W, ", ", s.C, ") with ", s.O, " filters of ",
                     s.R, "x", s.S, ", stride ", s.stride, ", dilation ", s.dilation);
}

Descriptor convolution(const Conv2dShape& s) {
  const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  Descriptor conv(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  conv.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT)
      .set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode)
      .set(CUDNN_ATTR_CONVOLUTION_DILATIONS, {s.dilation, s.dilation})
      .set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, {s.stride, s.stride})
      .set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, {s.pad_top, s.pad_left})
      .set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, {s.pad_bottom, s.pad_right})
      .set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, int64_t{2})
      .finalize();
  return conv;
}

// cuDNN names the same six attributes anew for each pass.
struct PassNames {
  cudnnBackendDescriptorType_t operation;
  cudnnBackendAttributeName_t x, weight, y, convolution, alpha, beta;
};
PassNames names_of(Pass pass) {
  switch (pass) {
    case Pass::kForward:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
    case Pass::kDataGradient:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
    case Pass::kWeightGradient:
      return {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
  }
  fail("cudnn: unknown pass");
}

void add_pass(Graph& graph, const Conv2dShape& s, Pass pass, TensorId x, TensorId weight, TensorId y) {
  const PassNames names = names_of(pass);
  Descriptor op(names.operation);
  op.set(names.x, graph[x])
      .set(names.weight, graph[weight])
      .set(names.y, graph[y])
      .set(names.convolution, convolution(s))
      .set(names.alpha, 1.0f)
      .set(names.beta, 0.0f)
      .finalize();
  graph.add(std::move(op));
}

void add_activation(Graph& graph, Activation activation, TensorId x, TensorId y) {
  switch (activation) {
    case Activation::kNone:
      return graph.unary(CUDNN_POINTWISE_IDENTITY, x, y);
    case Activation::kRelu:
      return graph.unary(CUDNN_POINTWISE_RELU_FWD, x, y);
    case Activation::kRelu6:
      return graph.unary(CUDNN_POINTWISE_RELU_FWD, x, y, {.relu_upper_clip = 6.0f});
    case Activation::kSigmoid:
      return graph.unary(CUDNN_POINTWISE_SIGMOID_FWD, x, y);
  }
}

}  // namespace

const char* name_of(Pass pass) {
  constexpr const char* names[] = {"forward", "data gradient", "weight gradient"};
  return names[static_cast<int>(pass)];
}

Graph conv2d_graph(const Conv2dShape& s, cudnnDataType_t type, Pass pass) {
  Graph graph(describe(name_of(pass), s));
  graph.tensor(kX, type, size_of_x(s));
  graph.tensor(kWeight, type, size_of_weight(s));
  graph.tensor(kY, type, size_of_y(s));
  add_pass(graph, s, pass, kX, kWeight, kY);
  return graph;
}

Graph conv2d_epilogue_graph(const Conv2dShape& s, cudnnDataType_t type, const Epilogue& epilogue) {
  Graph graph(describe("forward with epilogue", s));
  graph.tensor(kX, type, size_of_x(s));
  graph.tensor(kWeight, type, size_of_weight(s));
  graph.tensor(kY, type, size_of_y(s));
  // Each operation but the last writes an intermediate tensor.
  int left = (epilogue.residual ? 1 : 0) + (epilogue.bias ? 1 : 0) + (epilogue.activation != Activation::kNone ? 1 : 0);
  const auto next = [&] { return left-- == 0 ? kY : graph.intermediate(CUDNN_DATA_FLOAT, size_of_y(s)); };
  TensorId value = next();
  add_pass(graph, s, Pass::kForward, kX, kWeight, value);
  const auto add = [&](TensorId addend) {
    const TensorId sum = next();
    graph.binary(CUDNN_POINTWISE_ADD, value, addend, sum);
    value = sum;
  };
  if (epilogue.residual) add(graph.tensor(kResidual, type, size_of_y(s)));
  if (epilogue.bias) add(graph.tensor(kBias, epilogue.bias_type, per_channel(s.O)));
  if (epilogue.activation != Activation::kNone) add_activation(graph, epilogue.activation, value, next());
  return graph;
}

Graph conv2d_gradient_below_graph(const Conv2dShape& s, cudnnDataType_t type, Activation activation, bool sums) {
  check(activation == Activation::kRelu,
        "cudnn: a gradient from the output of the activation is only known to it for relu");
  Graph graph(describe("data gradient and that of the activation below", s));
  graph.tensor(kX, type, size_of_x(s));
  graph.tensor(kWeight, type, size_of_weight(s));
  graph.tensor(kY, type, size_of_y(s));
  graph.tensor(kActivated, type, size_of_x(s));
  if (sums) graph.tensor(kSum, CUDNN_DATA_FLOAT, per_channel(s.C));
  const TensorId dx = graph.intermediate(CUDNN_DATA_FLOAT, size_of_x(s));
  add_pass(graph, s, Pass::kDataGradient, dx, kWeight, kY);
  graph.unary_gradient(CUDNN_POINTWISE_RELU_BWD, dx, kActivated, kX);
  if (sums) graph.channel_sums(kX, kSum);
  return graph;
}

Graph conv2d_chain_graph(const Conv2dShape& s, cudnnDataType_t type, const ChainLink& link) {
  Graph graph(describe("forward in a chain of batch norms", s));
  graph.tensor(kX, type, size_of_x(s));
  graph.tensor(kWeight, type, size_of_weight(s));
  graph.tensor(kY, type, size_of_y(s));
  TensorId factor = kX;
  if (link.norm) {
    const auto apply = [&](cudnnPointwiseMode_t mode, TensorId vector) {
      graph.tensor(vector, CUDNN_DATA_FLOAT, per_channel(s.C));
      const TensorId result = graph.intermediate(CUDNN_DATA_FLOAT, size_of_x(s));
      graph.binary(mode, factor, vector, result);
      factor = result;
    };
    apply(CUDNN_POINTWISE_SUB, kMean);
    apply(CUDNN_POINTWISE_MUL, kRstd);
    apply(CUDNN_POINTWISE_MUL, kNormWeight);
    apply(CUDNN_POINTWISE_ADD, kNormBias);
    const TensorId rounded = graph.intermediate(type, size_of_x(s));  // the factor that the tensor cores multiply
    add_activation(graph, link.activation, factor, rounded);
    factor = rounded;
  }
  add_pass(graph, s, Pass::kForward, factor, kWeight, kY);
  if (link.sums) {
    graph.tensor(kMeanGuess, CUDNN_DATA_FLOAT, per_channel(s.O));
    graph.tensor(kSum, CUDNN_DATA_FLOAT, per_channel(s.O));
    graph.tensor(kSquareSum, CUDNN_DATA_FLOAT, per_channel(s.O));
    const TensorId difference = graph.intermediate(CUDNN_DATA_FLOAT, size_of_y(s));
    const TensorId square = graph.intermediate(CUDNN_DATA_FLOAT, size_of_y(s));
    graph.binary(CUDNN_POINTWISE_SUB, kY, kMeanGuess, difference);
    graph.binary(CUDNN_POINTWISE_MUL, difference, difference, square);
    graph.channel_sums(difference, kSum);
    graph.channel_sums(square, kSquareSum);
  }
  return graph;
}

}  // namespace depthstill::cudnn
