// cuDNN's descriptors describe these: tensors, operations on them, and graphs of operations.
#pragma once

#include <cudnn.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/simt/libraries/numbers.h"

namespace depthstill::simt {

// A tensor has four dimensions, in cuDNN's order: batch or filters, channels, rows, columns.
struct Tensor {
  int64_t id = 0;
  Format format = Format::kFloat;
  std::array<int64_t, 4> dims{}, strides{};
  int64_t alignment = 16;
  bool is_virtual = false;

  bool operator==(const Tensor&) const = default;
  int64_t count() const { return dims[0] * dims[1] * dims[2] * dims[3]; }
};

struct Convolution {
  std::array<int64_t, 2> dilations{}, strides{}, pre_paddings{}, post_paddings{};
  bool flipped = false;
};

struct Pointwise {
  cudnnPointwiseMode_t mode{};
  double lower_clip = 0.0, upper_clip = 0.0, lower_clip_slope = 0.0;

  // A gradient leads from that of an activation's output to that of its input.
  bool is_gradient() const { return mode >= CUDNN_POINTWISE_RELU_FWD + 100 && mode < CUDNN_POINTWISE_CMP_EQ; }
  bool is_binary() const { return mode < CUDNN_POINTWISE_ABS && mode != CUDNN_POINTWISE_SQRT; }
};

struct Reduction {};  // a sum

enum class Kind : uint8_t { kForward, kDataGradient, kWeightGradient, kPointwise, kReduction };

// output = function(inputs), the latter in the order of the documentation's formula:
//   forward (x, w)   data gradient (w, dy)   weight gradient (x, dy)
//   pointwise x, (x, b) or, for a gradient, (dy, x)   reduction x
struct Operation {
  Kind kind{};
  std::vector<Tensor> inputs;
  Tensor output;
  Convolution convolution;
  Pointwise pointwise;
  double alpha = 1.0, beta = 0.0;  // pointwise: alpha1, alpha2

  bool is_convolution() const { return kind <= Kind::kWeightGradient; }
};

struct OperationGraph {
  std::vector<Operation> operations;  // each behind those that it reads from
  std::map<int64_t, Tensor> tensors;  // tensors by id
  std::string text;                   // the same for equal graphs only

  bool is_output(int64_t id) const;
};
using SharedGraph = std::shared_ptr<const OperationGraph>;

struct Descriptor;
Tensor make_tensor(const Descriptor& descriptor);
Convolution make_convolution(const Descriptor& descriptor);
Pointwise make_pointwise(const Descriptor& descriptor);
Reduction make_reduction(const Descriptor& descriptor);
Operation make_operation(const Descriptor& descriptor);
SharedGraph make_graph(const std::vector<Operation>& operations);

}  // namespace depthstill::simt
