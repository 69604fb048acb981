// A thin RAII wrapper of the cuDNN 9 graph ("backend") API: descriptors, and graphs of operations whose intermediate
// tensors never reach memory.
#pragma once

#include <cudnn.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace depthstill::cudnn {

// Throws Error with cuDNN's own last message.
void check_status(cudnnStatus_t status, const char* what);
std::string last_message();

class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type);
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }

  Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                  const void* values);
  Descriptor& set(cudnnBackendAttributeName_t name, int64_t value) { return set(name, CUDNN_TYPE_INT64, 1, &value); }
  Descriptor& set(cudnnBackendAttributeName_t name, const std::vector<int64_t>& values) {
    return set(name, CUDNN_TYPE_INT64, static_cast<int64_t>(values.size()), values.data());
  }
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnDataType_t value) {
    return set(name, CUDNN_TYPE_DATA_TYPE, 1, &value);
  }
  Descriptor& set(cudnnBackendAttributeName_t name, float value) { return set(name, CUDNN_TYPE_FLOAT, 1, &value); }
  Descriptor& set(cudnnBackendAttributeName_t name, bool value) { return set(name, CUDNN_TYPE_BOOLEAN, 1, &value); }
  Descriptor& set(cudnnBackendAttributeName_t name, const Descriptor& value) {
    return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value.handle_);
  }
  Descriptor& finalize();
  // Finalises and reports whether cuDNN accepted: for plans, of which a heuristic offers several.
  bool try_finalize() { return cudnnBackendFinalize(handle_) == CUDNN_STATUS_SUCCESS; }

  cudnnBackendDescriptor_t get() const { return handle_; }

 private:
  cudnnBackendDescriptor_t handle_ = nullptr;
};

using TensorId = int64_t;

struct TensorSize {
  int64_t n = 1, c = 1, h = 1, w = 1;
};

// Pointwise functions beyond their mode.
struct PointwiseOptions {
  float relu_upper_clip = 0.0f;  // > 0: relu stops there
};

// Operations over tensors that are named by ids: those of memory by the caller, intermediate ones by the graph. All
// tensors are dense and channels last. Everything is computed in fp32.
class Graph {
 public:
  explicit Graph(std::string name) : name_(std::move(name)) {}
  const std::string& name() const { return name_; }

  // Returns `id`, under which the plan will be given the pointer.
  TensorId tensor(TensorId id, cudnnDataType_t type, const TensorSize& size);
  // A tensor that exists in registers only.
  TensorId intermediate(cudnnDataType_t type, const TensorSize& size);
  const Descriptor& operator[](TensorId id) const { return tensors_.at(id); }
  // Returns whether no tensor is of a narrower type than fp32.
  bool all_fp32() const { return all_fp32_; }

  void add(Descriptor operation) { operations_.push_back(std::move(operation)); }
  void unary(cudnnPointwiseMode_t mode, TensorId x, TensorId y, const PointwiseOptions& options = {});
  void binary(cudnnPointwiseMode_t mode, TensorId x, TensorId b, TensorId y);
  // dx = dy * slope at x (of a sigmoid, relu and so on: one of the _BWD modes).
  void unary_gradient(cudnnPointwiseMode_t mode, TensorId dy, TensorId x, TensorId dx,
                      const PointwiseOptions& options = {});
  // y (1, C, 1, 1) = sum of x over all but the channels.
  void channel_sums(TensorId x, TensorId y);

  // A null handle is for a device that is described elsewhere.
  Descriptor finalized(cudnnHandle_t handle) const;

 private:
  TensorId add_tensor(TensorId id, cudnnDataType_t type, const TensorSize& size, bool intermediate);

  std::string name_;
  bool all_fp32_ = true;
  std::map<TensorId, Descriptor> tensors_;
  std::vector<Descriptor> operations_;
};

}  // namespace depthstill::cudnn
