// Stands in for cuDNN where there is no CUDA, so that whole networks run on the emulated device: the CPU's convolution
// on what is host memory anyway.
#include "kernels/conv2d.h"
#include "kernels/dry_run.h"

namespace depthstill::cuda {

template <class T>
void conv2d(Stream stream, const Conv2dShape& shape, Activation act, const T* x, const float* weight, const float* bias,
            T* y) {
  if (dry_running()) return record_library_call("conv2d");
  cpu::conv2d(stream, shape, act, x, weight, bias, y);
}
template <class T>
void conv2d_grad(Stream stream, const Conv2dShape& shape, Activation act, const T* x, const float* weight, const T* y,
                 T* dy, T* dx, float* dweight, float* dbias, Activation below, float* dbias_below) {
  if (dry_running()) return record_library_call("conv2d gradient");
  cpu::conv2d_grad(stream, shape, act, x, weight, y, dy, dx, dweight, dbias, below, dbias_below);
}

#define DS_INSTANTIATE(T)                                                                                        \
  template void conv2d<T>(Stream, const Conv2dShape&, Activation, const T*, const float*, const float*, T*);     \
  template void conv2d_grad<T>(Stream, const Conv2dShape&, Activation, const T*, const float*, const T*, T*, T*, \
                               float*, float*, Activation, float*);
DS_INSTANTIATE(float)
DS_INSTANTIATE(bf16)
#undef DS_INSTANTIATE

}  // namespace depthstill::cuda
