#include "kernels/cudnn/graph.h"

#include "kernels/core/error.h"

namespace depthstill::cudnn {
namespace {

constexpr TensorId kFirstIntermediate = 1000;  // far above what callers name

Descriptor pointwise_function(cudnnPointwiseMode_t mode, const PointwiseOptions& options) {
  Descriptor function(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  function.set(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode)
      .set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT);
  if (options.relu_upper_clip > 0.0f) {
    const double clip = static_cast<double>(options.relu_upper_clip);
    function.set(CUDNN_ATTR_POINTWISE_RELU_UPPER_CLIP, CUDNN_TYPE_DOUBLE, 1, &clip);
  }
  function.finalize();
  return function;
}

}  // namespace

std::string last_message() {
  char message[1024] = "";
  cudnnGetLastErrorString(message, sizeof(message));
  return message;
}

void check_status(cudnnStatus_t status, const char* what) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  const std::string message = last_message();
  fail("cudnn: ", what, ": ", cudnnGetErrorString(status), message.empty() ? "" : ": ", message);
}

Descriptor::Descriptor(cudnnBackendDescriptorType_t type) {
  check_status(cudnnBackendCreateDescriptor(type, &handle_), "creating a descriptor");
}

Descriptor::~Descriptor() {
  if (handle_ != nullptr) cudnnBackendDestroyDescriptor(handle_);
}

Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                            const void* values) {
  check_status(cudnnBackendSetAttribute(handle_, name, type, count, values), "setting an attribute");
  return *this;
}

Descriptor& Descriptor::finalize() {
  check_status(cudnnBackendFinalize(handle_), "finalising a descriptor");
  return *this;
}

TensorId Graph::add_tensor(TensorId id, cudnnDataType_t type, const TensorSize& s, bool intermediate) {
  Descriptor tensor(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  tensor.set(CUDNN_ATTR_TENSOR_DATA_TYPE, type)
      .set(CUDNN_ATTR_TENSOR_DIMENSIONS, {s.n, s.c, s.h, s.w})
      .set(CUDNN_ATTR_TENSOR_STRIDES, {s.h * s.w * s.c, 1, s.w * s.c, s.c})
      .set(CUDNN_ATTR_TENSOR_UNIQUE_ID, id)
      .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, int64_t{16});
  if (intermediate) tensor.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, true);
  tensor.finalize();
  tensors_.emplace(id, std::move(tensor));
  all_fp32_ = all_fp32_ && type == CUDNN_DATA_FLOAT;
  return id;
}

TensorId Graph::tensor(TensorId id, cudnnDataType_t type, const TensorSize& size) {
  return add_tensor(id, type, size, false);
}

TensorId Graph::intermediate(cudnnDataType_t type, const TensorSize& size) {
  return add_tensor(kFirstIntermediate + static_cast<TensorId>(tensors_.size()), type, size, true);
}

void Graph::unary(cudnnPointwiseMode_t mode, TensorId x, TensorId y, const PointwiseOptions& options) {
  Descriptor op(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, pointwise_function(mode, options))
      .set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, tensors_.at(x))
      .set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, tensors_.at(y))
      .finalize();
  add(std::move(op));
}

void Graph::binary(cudnnPointwiseMode_t mode, TensorId x, TensorId b, TensorId y) {
  Descriptor op(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, pointwise_function(mode, {}))
      .set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, tensors_.at(x))
      .set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, tensors_.at(b))
      .set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, tensors_.at(y))
      .finalize();
  add(std::move(op));
}

void Graph::unary_gradient(cudnnPointwiseMode_t mode, TensorId dy, TensorId x, TensorId dx,
                           const PointwiseOptions& options) {
  Descriptor op(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  op.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, pointwise_function(mode, options))
      .set(CUDNN_ATTR_OPERATION_POINTWISE_DYDESC, tensors_.at(dy))
      .set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, tensors_.at(x))
      .set(CUDNN_ATTR_OPERATION_POINTWISE_DXDESC, tensors_.at(dx))
      .finalize();
  add(std::move(op));
}

void Graph::channel_sums(TensorId x, TensorId y) {
  const cudnnReduceTensorOp_t sum = CUDNN_REDUCE_TENSOR_ADD;
  Descriptor reduction(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
  reduction.set(CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &sum)
      .set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT)
      .finalize();
  Descriptor op(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
  op.set(CUDNN_ATTR_OPERATION_REDUCTION_DESC, reduction)
      .set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, tensors_.at(x))
      .set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, tensors_.at(y))
      .finalize();
  add(std::move(op));
}

Descriptor Graph::finalized(cudnnHandle_t handle) const {
  std::vector<cudnnBackendDescriptor_t> operations;
  for (const Descriptor& operation : operations_) operations.push_back(operation.get());
  Descriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<int64_t>(operations.size()),
            operations.data());
  if (handle != nullptr) graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
  graph.finalize();
  return graph;
}

}  // namespace depthstill::cudnn
