#include "kernels/simt/libraries/cudnn_graph.h"

#include <algorithm>
#include <limits>
#include <set>

#include "kernels/simt/libraries/cudnn_descriptor.h"
#include "kernels/simt/libraries/cudnn_refusal.h"

namespace depthstill::simt {
namespace {

Format format_of(cudnnDataType_t type) {
  require(type == CUDNN_DATA_FLOAT || type == CUDNN_DATA_BFLOAT16, CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, "data type ",
          type, " is not simulated");
  return type == CUDNN_DATA_FLOAT ? Format::kFloat : Format::kBf16;
}

void require_fp32(const Descriptor& descriptor, cudnnBackendAttributeName_t name) {
  require(descriptor.value<cudnnDataType_t>(name) == CUDNN_DATA_FLOAT, CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE,
          "only fp32 is computed in, attribute ", name);
}

template <size_t kCount>
std::array<int64_t, kCount> numbers(const Descriptor& descriptor, cudnnBackendAttributeName_t name, int64_t least) {
  const std::vector<int64_t> list = descriptor.values<int64_t>(name);
  require(list.size() == kCount, CUDNN_STATUS_BAD_PARAM, "attribute ", name, " has ", list.size(), " values for ",
          kCount, " dimensions");
  std::array<int64_t, kCount> result{};
  std::copy(list.begin(), list.end(), result.begin());
  for (const int64_t value : result)
    require(value >= least, CUDNN_STATUS_BAD_PARAM, "attribute ", name, " has the value ", value);
  return result;
}

// Returns whether no two elements share an address.
bool elements_are_apart(const Tensor& tensor) {
  std::vector<std::pair<int64_t, int64_t>> by_stride;
  for (size_t d = 0; d < 4; ++d) {
    if (tensor.dims[d] > 1) by_stride.emplace_back(tensor.strides[d], tensor.dims[d]);
  }
  std::sort(by_stride.begin(), by_stride.end());
  int64_t room = 1;
  for (const auto& [stride, dim] : by_stride) {
    if (stride < room) return false;
    room = stride * dim;
  }
  return true;
}

std::string describe(const Tensor& t) {
  std::string text = concat_text(t.id, ":", static_cast<int>(t.format), t.is_virtual ? "v" : "m", t.alignment);
  for (size_t d = 0; d < 4; ++d) text += concat_text(d == 0 ? "[" : ",", t.dims[d], "/", t.strides[d]);
  return text + "]";
}

std::string describe(const Operation& op) {
  std::string text = concat_text("op", static_cast<int>(op.kind), " a", op.alpha, " b", op.beta);
  for (const Tensor& input : op.inputs) text += " " + describe(input);
  text += " -> " + describe(op.output);
  if (op.is_convolution()) {
    const Convolution& c = op.convolution;
    for (size_t d = 0; d < 2; ++d)
      text += concat_text(" ", c.dilations[d], ",", c.strides[d], ",", c.pre_paddings[d], ",", c.post_paddings[d]);
    text += c.flipped ? " flipped" : "";
  }
  if (op.kind == Kind::kPointwise) {
    const Pointwise& f = op.pointwise;
    text += concat_text(" f", f.mode, ",", f.lower_clip, ",", f.upper_clip, ",", f.lower_clip_slope);
  }
  return text;
}

void check_convolution(const Convolution& c, const Tensor& x, const Tensor& w, const Tensor& y) {
  require(x.dims[0] == y.dims[0], CUDNN_STATUS_BAD_PARAM, "convolution: batch ", x.dims[0], " of x and ", y.dims[0],
          " of y");
  require(w.dims[0] == y.dims[1], CUDNN_STATUS_BAD_PARAM, "convolution: ", w.dims[0], " filters for ", y.dims[1],
          " channels of y");
  require(w.dims[1] > 0 && x.dims[1] % w.dims[1] == 0, CUDNN_STATUS_BAD_PARAM, "convolution: ", x.dims[1],
          " channels of x for filters of ", w.dims[1]);
  require(x.dims[1] == w.dims[1], CUDNN_STATUS_NOT_SUPPORTED, "convolution: groups are not simulated");
  for (size_t d = 0; d < 2; ++d) {
    const int64_t padded = x.dims[2 + d] + c.pre_paddings[d] + c.post_paddings[d];
    const int64_t span = (w.dims[2 + d] - 1) * c.dilations[d] + 1;
    require(padded >= span && y.dims[2 + d] == (padded - span) / c.strides[d] + 1, CUDNN_STATUS_BAD_PARAM,
            "convolution: ", y.dims[2 + d], " outputs along spatial dimension ", d, " for ", padded,
            " padded inputs and a filter that spans ", span);
  }
}

Operation make_convolution_operation(const Descriptor& d, Kind kind) {
  using Names = std::array<cudnnBackendAttributeName_t, 6>;  // x, w, y, convolution, alpha, beta
  constexpr Names names[] = {
      {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
       CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
       CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
      {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
      {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA}};
  const Names& name = names[static_cast<size_t>(kind)];
  const Tensor &x = d.referred(name[0]).as<Tensor>(), &w = d.referred(name[1]).as<Tensor>(),
               &y = d.referred(name[2]).as<Tensor>();
  Operation op;
  op.kind = kind;
  op.convolution = d.referred(name[3]).as<Convolution>();
  op.alpha = d.number_or(name[4], 1.0);
  op.beta = d.number_or(name[5], 0.0);
  check_convolution(op.convolution, x, w, y);
  switch (kind) {
    case Kind::kDataGradient:
      op.inputs = {w, y};
      op.output = x;
      break;
    case Kind::kWeightGradient:
      op.inputs = {x, y};
      op.output = w;
      break;
    default:
      op.inputs = {x, w};
      op.output = y;
  }
  return op;
}

// An input has either the same size as the output or 1 along each dimension.
void require_broadcast(const Tensor& input, const Tensor& output) {
  for (size_t d = 0; d < 4; ++d) {
    require(input.dims[d] == output.dims[d] || input.dims[d] == 1, CUDNN_STATUS_BAD_PARAM, "pointwise: ", input.dims[d],
            " values for ", output.dims[d], " along dimension ", d);
  }
}

Operation make_pointwise_operation(const Descriptor& d) {
  Operation op;
  op.kind = Kind::kPointwise;
  op.pointwise = d.referred(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR).as<Pointwise>();
  op.alpha = d.number_or(CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1, 1.0);
  op.beta = d.number_or(CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2, 1.0);
  const bool gradient = op.pointwise.is_gradient(), binary = op.pointwise.is_binary();
  const auto tensor = [&](cudnnBackendAttributeName_t name) {
    require(d.has(name), CUDNN_STATUS_BAD_PARAM, "pointwise mode ", op.pointwise.mode, " needs attribute ", name);
    return d.referred(name).as<Tensor>();
  };
  const auto without = [&](cudnnBackendAttributeName_t name) {
    require(!d.has(name), CUDNN_STATUS_BAD_PARAM, "pointwise mode ", op.pointwise.mode, " has no attribute ", name);
  };
  if (gradient) {
    op.inputs = {tensor(CUDNN_ATTR_OPERATION_POINTWISE_DYDESC), tensor(CUDNN_ATTR_OPERATION_POINTWISE_XDESC)};
    op.output = tensor(CUDNN_ATTR_OPERATION_POINTWISE_DXDESC);
    without(CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
  } else {
    op.inputs = {tensor(CUDNN_ATTR_OPERATION_POINTWISE_XDESC)};
    op.output = tensor(CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
    without(CUDNN_ATTR_OPERATION_POINTWISE_DYDESC);
    without(CUDNN_ATTR_OPERATION_POINTWISE_DXDESC);
  }
  if (binary)
    op.inputs.push_back(tensor(CUDNN_ATTR_OPERATION_POINTWISE_BDESC));
  else
    without(CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
  for (const Tensor& input : op.inputs) require_broadcast(input, op.output);
  return op;
}

Operation make_reduction_operation(const Descriptor& d) {
  Operation op;
  op.kind = Kind::kReduction;
  op.inputs = {d.referred(CUDNN_ATTR_OPERATION_REDUCTION_XDESC).as<Tensor>()};
  op.output = d.referred(CUDNN_ATTR_OPERATION_REDUCTION_YDESC).as<Tensor>();
  for (size_t i = 0; i < 4; ++i) {
    require(op.output.dims[i] == op.inputs[0].dims[i] || op.output.dims[i] == 1, CUDNN_STATUS_BAD_PARAM,
            "reduction of ", op.inputs[0].dims[i], " values to ", op.output.dims[i], " along dimension ", i);
  }
  return op;
}

// Every id means one tensor, written by one operation at most.
void collect_tensors(OperationGraph& graph) {
  std::set<int64_t> written, read;
  const auto add = [&](const Tensor& tensor) {
    const auto [at, added] = graph.tensors.emplace(tensor.id, tensor);
    require(at->second == tensor, CUDNN_STATUS_BAD_PARAM, "graph: two different tensors have the id ", tensor.id);
  };
  for (const Operation& op : graph.operations) {
    for (const Tensor& input : op.inputs) {
      add(input);
      read.insert(input.id);
      require(input.id != op.output.id, CUDNN_STATUS_BAD_PARAM, "graph: an operation reads what it writes, tensor ",
              input.id);
    }
    add(op.output);
    require(written.insert(op.output.id).second, CUDNN_STATUS_BAD_PARAM, "graph: two operations write tensor ",
            op.output.id);
  }
  for (const auto& [id, tensor] : graph.tensors) {
    require(!tensor.is_virtual || (written.count(id) > 0 && read.count(id) > 0), CUDNN_STATUS_BAD_PARAM,
            "graph: the virtual tensor ", id, " is not both written and read");
  }
}

// Operations may be listed in any order.
void sort_operations(OperationGraph& graph) {
  std::vector<Operation> left = std::move(graph.operations);
  graph.operations.clear();
  while (!left.empty()) {
    const auto is_pending = [&](const Tensor& tensor) {
      return std::any_of(left.begin(), left.end(), [&](const Operation& op) { return op.output.id == tensor.id; });
    };
    const auto ready = std::find_if(left.begin(), left.end(), [&](const Operation& op) {
      return std::none_of(op.inputs.begin(), op.inputs.end(), is_pending);
    });
    require(ready != left.end(), CUDNN_STATUS_BAD_PARAM, "graph: its operations wait for each other");
    graph.operations.push_back(std::move(*ready));
    left.erase(ready);
  }
}

}  // namespace

bool OperationGraph::is_output(int64_t id) const {
  return std::any_of(operations.begin(), operations.end(), [&](const Operation& op) { return op.output.id == id; });
}

Tensor make_tensor(const Descriptor& d) {
  Tensor tensor;
  tensor.id = d.value<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID);
  tensor.format = format_of(d.value<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE));
  tensor.dims = numbers<4>(d, CUDNN_ATTR_TENSOR_DIMENSIONS, 1);
  tensor.strides = numbers<4>(d, CUDNN_ATTR_TENSOR_STRIDES, 0);
  tensor.alignment = d.value<int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT);
  tensor.is_virtual = d.value_or(CUDNN_ATTR_TENSOR_IS_VIRTUAL, false);
  require(tensor.alignment > 0 && tensor.alignment % bytes_of(tensor.format) == 0, CUDNN_STATUS_BAD_PARAM,
          "tensor: an alignment to ", tensor.alignment, " bytes");
  require(elements_are_apart(tensor), CUDNN_STATUS_BAD_PARAM, "tensor: elements share an address: ", describe(tensor));
  return tensor;
}

Convolution make_convolution(const Descriptor& d) {
  require_fp32(d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE);
  require(d.value<int64_t>(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS) == 2, CUDNN_STATUS_NOT_SUPPORTED,
          "convolution: two spatial dimensions are simulated");
  Convolution c;
  c.dilations = numbers<2>(d, CUDNN_ATTR_CONVOLUTION_DILATIONS, 1);
  c.strides = numbers<2>(d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, 1);
  c.pre_paddings = numbers<2>(d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, 0);
  c.post_paddings = numbers<2>(d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, 0);
  c.flipped = d.value<cudnnConvolutionMode_t>(CUDNN_ATTR_CONVOLUTION_CONV_MODE) == CUDNN_CONVOLUTION;
  return c;
}

Pointwise make_pointwise(const Descriptor& d) {
  require_fp32(d, CUDNN_ATTR_POINTWISE_MATH_PREC);
  Pointwise f;
  f.mode = d.value<cudnnPointwiseMode_t>(CUDNN_ATTR_POINTWISE_MODE);
  constexpr cudnnPointwiseMode_t simulated[] = {
      CUDNN_POINTWISE_ADD,      CUDNN_POINTWISE_SUB,      CUDNN_POINTWISE_MUL,        CUDNN_POINTWISE_IDENTITY,
      CUDNN_POINTWISE_RELU_FWD, CUDNN_POINTWISE_RELU_BWD, CUDNN_POINTWISE_SIGMOID_FWD};
  require(std::find(std::begin(simulated), std::end(simulated), f.mode) != std::end(simulated),
          CUDNN_STATUS_NOT_SUPPORTED, "pointwise mode ", f.mode, " is not simulated");
  f.lower_clip = d.value_or(CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP, 0.0);
  f.upper_clip = d.value_or(CUDNN_ATTR_POINTWISE_RELU_UPPER_CLIP, std::numeric_limits<double>::max());
  f.lower_clip_slope = d.value_or(CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP_SLOPE, 0.0);
  return f;
}

Reduction make_reduction(const Descriptor& d) {
  require_fp32(d, CUDNN_ATTR_REDUCTION_COMP_TYPE);
  require(d.value<cudnnReduceTensorOp_t>(CUDNN_ATTR_REDUCTION_OPERATOR) == CUDNN_REDUCE_TENSOR_ADD,
          CUDNN_STATUS_NOT_SUPPORTED, "only sums are simulated among the reductions");
  return {};
}

Operation make_operation(const Descriptor& d) {
  switch (d.type) {
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
      return make_convolution_operation(d, Kind::kForward);
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
      return make_convolution_operation(d, Kind::kDataGradient);
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
      return make_convolution_operation(d, Kind::kWeightGradient);
    case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
      return make_pointwise_operation(d);
    default:
      return make_reduction_operation(d);
  }
}

SharedGraph make_graph(const std::vector<Operation>& operations) {
  auto graph = std::make_shared<OperationGraph>();
  graph->operations = operations;
  collect_tensors(*graph);
  sort_operations(*graph);
  for (const Operation& op : graph->operations) graph->text += describe(op) + "; ";
  return graph;
}

}  // namespace depthstill::simt
