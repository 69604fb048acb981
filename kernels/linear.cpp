#include "kernels/linear.h"

#include "kernels/conv2d/conv2d.h"

namespace depthstill::cpu {
namespace {

// One image of `rows` x 1 pixels.
Conv2dShape as_convolution(const LinearShape& s) { return {.N = 1, .H = s.rows, .W = 1, .C = s.I, .O = s.O}; }

}  // namespace

template <class T>
void linear(Stream stream, const LinearShape& shape, const T* x, const float* weight, const float* bias, T* y) {
  conv2d(stream, as_convolution(shape), Activation::kNone, x, weight, bias, y);
}

template <class T>
void linear_grad(Stream stream, const LinearShape& shape, const T* x, const float* weight, const T* dy, T* dx,
                 float* dweight, float* dbias) {
  // dy is written only where there is an activation.
  conv2d_grad<T>(stream, as_convolution(shape), Activation::kNone, x, weight, nullptr, const_cast<T*>(dy),
                 {dx, dweight, dbias});
}

#define DS_INSTANTIATE(T)                                                                        \
  template void linear<T>(Stream, const LinearShape&, const T*, const float*, const float*, T*); \
  template void linear_grad<T>(Stream, const LinearShape&, const T*, const float*, const T*, T*, float*, float*);
DS_INSTANTIATE(float)
DS_INSTANTIATE(bf16)
#undef DS_INSTANTIATE

}  // namespace depthstill::cpu
