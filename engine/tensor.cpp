#include "engine/tensor.h"

#include <cstring>

#include "engine/allocator.h"
#include "engine/autograd.h"
#include "kernels/cast.h"

namespace depthstill {

Tensor empty(const Shape& shape, DType dtype, Device device) {
  Tensor t;
  t.shape_ = shape;
  t.dtype_ = dtype;
  t.device_ = device;
  // The block has at least one byte, so that an empty tensor is still defined.
  void* memory = allocate(device, std::max<size_t>(t.bytes(), 1));
  t.storage_ = std::shared_ptr<void>(memory, [device](void* p) { deallocate(device, p); });
  return t;
}

Tensor zeros(const Shape& shape, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  zero_bytes(device, t.raw(), t.bytes());
  return t;
}

Tensor empty_like(const Tensor& x) { return empty(x.shape(), x.dtype(), x.device()); }
Tensor zeros_like(const Tensor& x) { return zeros(x.shape(), x.dtype(), x.device()); }

Tensor Tensor::view(const Shape& shape) const {
  check(shape.numel() == numel(), "view: ", shape, " does not have the ", numel(), " elements of ", shape_);
  Tensor t = detach();
  t.shape_ = shape;
  return t;
}

Tensor Tensor::detach() const {
  Tensor t = *this;
  t.node_ = nullptr;
  t.output_index_ = 0;
  return t;
}

Tensor& Tensor::set_requires_grad() {
  check(defined() && node_ == nullptr, "set_requires_grad: expected a tensor without history");
  node_ = std::make_shared<Node>();
  node_->name = "leaf";
  node_->grads.resize(1);
  return *this;
}

Tensor Tensor::grad() const { return node_ ? node_->grads.at(static_cast<size_t>(output_index_)) : Tensor(); }

void Tensor::clear_grad() {
  if (node_) node_->grads.at(static_cast<size_t>(output_index_)) = Tensor();
}

template <class T>
Tensor tensor(const Shape& shape, std::span<const T> values, Device device) {
  check(shape.numel() == static_cast<int64_t>(values.size()), "tensor: shape ", shape, " has ", shape.numel(),
        " elements, got ", values.size());
  Tensor t = empty(shape, dtype_of<T>, device);
  copy_bytes(t.raw(), device, values.data(), Device::kCpu, t.bytes());
  if (device == Device::kCuda) synchronize(device);  // `values` may go away
  return t;
}

template <class T>
std::vector<T> to_vector(const Tensor& x) {
  const T* from = x.data<T>();
  std::vector<T> values(static_cast<size_t>(x.numel()));
  copy_bytes(values.data(), Device::kCpu, from, x.device(), x.bytes());
  synchronize(x.device());
  return values;
}

#define DS_INSTANTIATE(T)                                              \
  template Tensor tensor<T>(const Shape&, std::span<const T>, Device); \
  template std::vector<T> to_vector<T>(const Tensor&);
DS_INSTANTIATE(float)
DS_INSTANTIATE(bf16)
DS_INSTANTIATE(int32_t)
DS_INSTANTIATE(int64_t)
DS_INSTANTIATE(uint8_t)
DS_INSTANTIATE(uint16_t)
#undef DS_INSTANTIATE

Tensor to_device(const Tensor& x, Device device) {
  if (!x.defined() || x.device() == device) return x.detach();
  Tensor t = empty(x.shape(), x.dtype(), device);
  copy_(t, x);
  return t;
}

Tensor clone(const Tensor& x) {
  Tensor t = empty_like(x);
  copy_(t, x);
  return t;
}

void copy_(const Tensor& to, const Tensor& from) {
  check(to.shape() == from.shape() && to.dtype() == from.dtype(), "copy: ", from.shape(), " ", from.dtype(), " into ",
        to.shape(), " ", to.dtype());
  copy_bytes(to.raw(), to.device(), from.raw(), from.device(), to.bytes());
  if (to.device() == Device::kCuda && to.dtype() == DType::kFloat) {  // it may be a parameter
    bf16* copy = cuda::rounded_copy(to, to.numel());
    if (copy != nullptr) cuda::cast<float, bf16>(stream_of(Device::kCuda), to.numel(), to, copy);
  }
  if (to.device() != from.device()) synchronize(Device::kCuda);
}

float item(const Tensor& x) {
  check(x.numel() == 1, "item: expected one element, got ", x.shape());
  return to_vector<float>(x)[0];
}

}  // namespace depthstill
