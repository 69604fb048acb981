#include "kernels/linear.h"

namespace depthstill::cpu {

template <class T>
void linear(Stream stream, const LinearShape& shape, const T* x, const float* weight, const float* bias, T* y) {
  conv2d(stream, shape.as_convolution(), Activation::kNone, x, weight, bias, y);
}

template <class T>
void linear_grad(Stream stream, const LinearShape& shape, const T* x, const float* weight, const T* dy, T* dx,
                 float* dweight, float* dbias) {
  // dy is written only where there is an activation.
  conv2d_grad<T>(stream, shape.as_convolution(), Activation::kNone, x, weight, nullptr, const_cast<T*>(dy),
                 {dx, dweight, dbias});
}

#define DS_INSTANTIATE(T)                                                                        \
  template void linear<T>(Stream, const LinearShape&, const T*, const float*, const float*, T*); \
  template void linear_grad<T>(Stream, const LinearShape&, const T*, const float*, const T*, T*, float*, float*);
DS_INSTANTIATE(float)
DS_INSTANTIATE(bf16)
#undef DS_INSTANTIATE

}  // namespace depthstill::cpu
