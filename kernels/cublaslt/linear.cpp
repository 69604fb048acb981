// cuda::linear and its gradient: one cuBLASLt product per pass and shape, our own kernels for casts and column sums.
#include "kernels/linear.h"

#include <map>
#include <type_traits>

#include "kernels/activation.h"
#include "kernels/cast.h"
#include "kernels/cublaslt/matmul.h"

namespace depthstill::cuda {
namespace {

using cublaslt::Matmul, cublaslt::MatmulShape;

template <class T>
constexpr cudaDataType_t kCudaType = std::is_same_v<T, float> ? CUDA_R_32F : CUDA_R_16BF;

const Matmul& plan_for(const MatmulShape& shape, const void* bias = nullptr) {
  static std::map<MatmulShape, Matmul>& plans = *new std::map<MatmulShape, Matmul>();
  auto found = plans.find(shape);
  if (found == plans.end()) found = plans.emplace(shape, Matmul(shape, bias)).first;
  return found->second;
}

size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

// Scratch that a parameter takes as T.
template <class T>
size_t typed_bytes(int64_t n) {
  return std::is_same_v<T, float> ? 0 : aligned(static_cast<size_t>(n) * sizeof(T));
}

// A parameter as T: itself in fp32, rounded into `room` in bf16.
template <class T>
const void* typed(Stream stream, int64_t n, const float* parameter, void* room) {
  if constexpr (std::is_same_v<T, float>) {
    return parameter;
  } else {
    cast<float, T>(stream, n, parameter, static_cast<T*>(room));
    return room;
  }
}

}  // namespace

template <class T>
void linear(Stream stream, const LinearShape& s, const T* x, const float* weight, const float* bias, T* y) {
  const Matmul& product = plan_for({.rows = s.rows,
                                    .columns = s.O,
                                    .inner = s.I,
                                    .b_transposed = true,
                                    .has_bias = bias != nullptr,
                                    .type = kCudaType<T>,
                                    .d_type = kCudaType<T>},
                                   bias);
  const size_t weight_bytes = typed_bytes<T>(s.O * s.I), bias_bytes = typed_bytes<T>(s.O);
  auto* room = static_cast<char*>(stream.scratch->get(weight_bytes + bias_bytes + product.workspace_bytes() + 256));
  const void* w = typed<T>(stream, s.O * s.I, weight, room);
  const void* b = bias == nullptr ? nullptr : typed<T>(stream, s.O, bias, room + weight_bytes);
  product(stream, x, w, b, y, room + weight_bytes + bias_bytes);
}

template <class T>
void linear_grad(Stream stream, const LinearShape& s, const T* x, const float* weight, const T* dy, T* dx,
                 float* dweight, float* dbias) {
  if (dbias != nullptr) {
    T* in_place = const_cast<T*>(dy);  // not written without an activation
    bias_activation_grad<T>(stream, s.rows, static_cast<int>(s.O), Activation::kNone, nullptr, dy, in_place, dbias);
  }
  if (dx != nullptr) {
    const Matmul& product =
        plan_for({.rows = s.rows, .columns = s.I, .inner = s.O, .type = kCudaType<T>, .d_type = kCudaType<T>});
    const size_t weight_bytes = typed_bytes<T>(s.O * s.I);
    auto* room = static_cast<char*>(stream.scratch->get(weight_bytes + product.workspace_bytes() + 256));
    const void* w = typed<T>(stream, s.O * s.I, weight, room);
    product(stream, dy, w, nullptr, dx, room + weight_bytes);
  }
  if (dweight != nullptr) {
    const Matmul& product =
        plan_for({.rows = s.O, .columns = s.I, .inner = s.rows, .a_transposed = true, .type = kCudaType<T>});
    void* workspace = stream.scratch->get(product.workspace_bytes() + 256);
    product(stream, dy, x, nullptr, dweight, workspace);
  }
}

#define DS_INSTANTIATE(T)                                                                        \
  template void linear<T>(Stream, const LinearShape&, const T*, const float*, const float*, T*); \
  template void linear_grad<T>(Stream, const LinearShape&, const T*, const float*, const T*, T*, float*, float*);
DS_INSTANTIATE(float)
DS_INSTANTIATE(bf16)
#undef DS_INSTANTIATE

}  // namespace depthstill::cuda
