// Descriptors of the simulated cuDNN: typed attributes under the rules of cudnnBackendSetAttribute and
// cudnnBackendFinalize, and what a finalised descriptor means.
#pragma once

#include <cudnn.h>

#include <cstddef>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/simt/libraries/cudnn_engines.h"
#include "kernels/simt/libraries/cudnn_graph.h"

namespace depthstill::simt {

struct Descriptor;
using SharedDescriptor = std::shared_ptr<const Descriptor>;

struct Attribute {
  cudnnBackendAttributeType_t type{};
  int64_t count = 0;
  std::vector<std::byte> bytes;               // bytes of `count` values, or
  std::vector<SharedDescriptor> descriptors;  // descriptors referred to, as they were then
};

struct VariantPack {
  std::map<int64_t, void*> pointers;
  void* workspace = nullptr;
};

// Finalisation makes this of the attributes.
using Meaning = std::variant<std::monostate, Tensor, Convolution, Pointwise, Reduction, Operation, SharedGraph,
                             std::vector<Engine>, Engine, Plan, VariantPack>;

struct Descriptor {
  cudnnBackendDescriptorType_t type{};
  bool finalized = false;
  std::map<cudnnBackendAttributeName_t, Attribute> attributes;
  Meaning meaning;

  template <class T>
  const T& as() const {
    return std::get<T>(meaning);
  }
  bool has(cudnnBackendAttributeName_t name) const { return attributes.count(name) > 0; }

  template <class T>
  std::vector<T> values(cudnnBackendAttributeName_t name) const {
    const auto found = attributes.find(name);
    if (found == attributes.end()) return {};
    std::vector<T> list(static_cast<size_t>(found->second.count));
    std::memcpy(list.data(), found->second.bytes.data(), list.size() * sizeof(T));
    return list;
  }
  template <class T>
  T value(cudnnBackendAttributeName_t name) const {
    T first;
    std::memcpy(&first, attributes.at(name).bytes.data(), sizeof(T));
    return first;
  }
  template <class T>
  T value_or(cudnnBackendAttributeName_t name, T otherwise) const {
    return has(name) ? value<T>(name) : otherwise;
  }
  // The attribute may be CUDNN_TYPE_FLOAT or CUDNN_TYPE_DOUBLE.
  double number_or(cudnnBackendAttributeName_t name, double otherwise) const;
  const Descriptor& referred(cudnnBackendAttributeName_t name) const { return *attributes.at(name).descriptors.at(0); }
};

// These throw Refusal.
void set_attribute(Descriptor& descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                   int64_t count, const void* values);
void finalize(Descriptor& descriptor);
void check_required_attributes(const Descriptor& descriptor);
void check_known(cudnnBackendDescriptorType_t type);

// A cudnnBackendDescriptor_t points to this.
using Handle = std::shared_ptr<Descriptor>;
Descriptor& descriptor_of(cudnnBackendDescriptor_t handle);

}  // namespace depthstill::simt
