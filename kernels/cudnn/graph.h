// A thin RAII wrapper of the cuDNN 9 graph ("backend") API: descriptors, and execution plans that are built either for
// the GPU behind a handle or, without any GPU, for one described by a JSON record (so that CI can check every plan).
#pragma once

#include <cudnn.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "kernels/stream.h"

namespace depthstill::cudnn {

// Throws Error with cuDNN's own last message.
void check_status(cudnnStatus_t status, const char* what);

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

// A dense tensor as cuDNN sees it: dimensions N, C, H, W with the strides of channels-last memory.
Descriptor nhwc_tensor(int64_t id, cudnnDataType_t type, int64_t n, int64_t c, int64_t h, int64_t w);

struct Target {
  cudnnHandle_t handle = nullptr;  // a real GPU, or
  std::string device_json;         // the properties of one that is not here
};
Target current_target(Stream stream);

struct PlanOptions {
  int64_t workspace_cap_bytes = int64_t{1} << 30;
  bool tensor_cores_for_fp32 = true;  // false: no TF32
};

class Plan {
 public:
  // The first plan of the heuristic's list that is supported and keeps to the workspace cap; throws Error with `name`
  // if there is none.
  Plan(const Target& target, const Descriptor& operation, const std::string& name, const PlanOptions& options = {});
  size_t workspace_bytes() const { return workspace_bytes_; }
  int offered() const { return offered_; }
  void execute(Stream stream, std::initializer_list<std::pair<int64_t, const void*>> tensors, void* workspace) const;

 private:
  Descriptor plan_;
  std::string name_;
  size_t workspace_bytes_ = 0;
  int offered_ = 0;
};

}  // namespace depthstill::cudnn
