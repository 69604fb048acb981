// The operation graphs of a convolution: its three passes, and with what cuDNN can fuse to them. Tensors are NHWC,
// weights (O, R, S, C); x, weight, y and what has their shape are of one type `type`, everything is computed in fp32.
// Vectors of channels are (1, C, 1, 1).
#pragma once

#include "kernels/conv2d/conv2d.h"
#include "kernels/cudnn/graph.h"

namespace depthstill::cudnn {

enum class Pass { kForward, kDataGradient, kWeightGradient };
const char* name_of(Pass pass);

// Tensor ids; a gradient has the id of its tensor.
constexpr TensorId kX = 1, kWeight = 2, kY = 3;
constexpr TensorId kBias = 4;       // (O), of the type that the graph was made with
constexpr TensorId kResidual = 5;   // map like y
constexpr TensorId kActivated = 6;  // map like x: the output of the activation below
constexpr TensorId kMean = 7, kRstd = 8, kNormWeight = 9, kNormBias = 10;  // (C) fp32: of the batch norm below
constexpr TensorId kMeanGuess = 11;                                        // (O) fp32
constexpr TensorId kSum = 12, kSquareSum = 13;                             // (O) or (C) fp32

// y = x * weight, dx or dweight.
Graph conv2d_graph(const Conv2dShape& shape, cudnnDataType_t type, Pass pass);

struct Epilogue {
  bool bias = false;
  cudnnDataType_t bias_type = CUDNN_DATA_FLOAT;
  bool residual = false;
  Activation activation = Activation::kNone;
};
// y = act(x * weight + residual + bias). With a bias of the type of x, and relu, cuDNN has compiled kernels; other
// forms it compiles when the plan is made, which needs NVRTC.
Graph conv2d_epilogue_graph(const Conv2dShape& shape, cudnnDataType_t type, const Epilogue& epilogue);

// dx = (dx of the convolution) * act'(activated) and, with `sums`, sum = sum of dx per channel: what backward does from
// this convolution down to the product of the one below, whose output x = activated was and whose dbias the sums are.
// Only relu is known to cuDNN by its output.
Graph conv2d_gradient_below_graph(const Conv2dShape& shape, cudnnDataType_t type, Activation activation, bool sums);

struct ChainLink {
  bool norm = false;  // x is normalised as it is read: act((x - mean) * rstd * norm_weight + norm_bias)
  Activation activation = Activation::kNone;
  bool sums = false;  // sums per channel of d = y - mean_guess and of d^2: the statistics of the batch norm above
};
// y = x * weight in a chain of convolutions and batch norms.
Graph conv2d_chain_graph(const Conv2dShape& shape, cudnnDataType_t type, const ChainLink& link);

}  // namespace depthstill::cudnn
