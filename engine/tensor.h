// A dense, contiguous array on one device. Copying a Tensor copies a handle; the storage is shared.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/device.h"
#include "engine/dtype.h"
#include "engine/shape.h"

namespace depthstill {

struct Node;  // autograd.h

class Tensor {
 public:
  Tensor() = default;  // undefined

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int64_t size(int dim) const { return shape_[dim]; }
  int64_t numel() const { return shape_.numel(); }
  size_t bytes() const { return static_cast<size_t>(numel()) * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }

  void* raw() const { return storage_.get(); }
  // The elements, checked to be of type T. For host access the tensor must be on the CPU.
  template <class T>
  T* data() const {
    check(dtype_of<T> == dtype_, "tensor: expected ", dtype_of<T>, " elements, the tensor holds ", dtype_);
    return static_cast<T*>(raw());
  }
  // A Tensor converts to a pointer, so that it can be an argument of run(...); an undefined one becomes a null pointer.
  template <class T>
  operator T*() const {
    return defined() ? data<std::remove_const_t<T>>() : nullptr;
  }

  // The same storage under another shape of equal size, without history (the differentiable op is reshape()).
  Tensor view(const Shape& shape) const;
  // The same storage without history.
  Tensor detach() const;

  // True if a gradient will flow into this tensor: it is a parameter or was computed from one.
  bool requires_grad() const { return node_ != nullptr; }
  // Makes a leaf: backward() leaves d loss / d this in grad().
  Tensor& set_requires_grad();
  // The accumulated gradient of a leaf; undefined if none has arrived.
  Tensor grad() const;
  void clear_grad();

  // True if no other handle shares the storage.
  bool sole_owner() const { return storage_.use_count() == 1; }

  const std::shared_ptr<Node>& node() const { return node_; }
  int output_index() const { return output_index_; }

 private:
  friend Tensor empty(const Shape&, DType, Device);
  friend Tensor with_node(Tensor, std::shared_ptr<Node>, int);

  std::shared_ptr<void> storage_;
  Shape shape_;
  DType dtype_ = DType::kFloat;
  Device device_ = Device::kCpu;
  int output_index_ = 0;
  std::shared_ptr<Node> node_;
};

Tensor empty(const Shape& shape, DType dtype = DType::kFloat, Device device = Device::kCpu);  // contents undefined
Tensor zeros(const Shape& shape, DType dtype = DType::kFloat, Device device = Device::kCpu);
Tensor empty_like(const Tensor& x);
Tensor zeros_like(const Tensor& x);

// A tensor of `values` on `device`.
template <class T>
Tensor tensor(const Shape& shape, std::span<const T> values, Device device = Device::kCpu);
template <class T>
std::vector<T> to_vector(const Tensor& x);

// The same values on `device`; a handle to the same storage if it already lives there. No gradient flows.
Tensor to_device(const Tensor& x, Device device);
// A copy in new storage, without history.
Tensor clone(const Tensor& x);
// Writes the elements of `from` over those of `to`; same shape and dtype, any devices.
void copy_(const Tensor& to, const Tensor& from);

// The value of a one-element fp32 tensor; waits for the device.
float item(const Tensor& x);

}  // namespace depthstill
