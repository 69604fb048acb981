// This file stands in for cuBLASLt where not even its headers are there to simulate it by, so that whole networks run
// on the emulated device: it is the CPU's products on what is host memory anyway.
#include "kernels/core/dry_run.h"
#include "kernels/linear.h"
#include "kernels/simt/queue.h"

namespace depthstill::cuda {

template <class T>
void linear(Stream stream, const LinearShape& shape, const T* x, const float* weight, const float* bias, T* y) {
  if (dry_running()) return record_library_call("linear");
  simt::submit_on_cpu(stream, [=](Stream cpu) { cpu::linear(cpu, shape, x, weight, bias, y); });
}
template <class T>
void linear_grad(Stream stream, const LinearShape& shape, const T* x, const float* weight, const T* dy, T* dx,
                 float* dweight, float* dbias) {
  if (dry_running()) return record_library_call("linear gradient");
  simt::submit_on_cpu(stream, [=](Stream cpu) { cpu::linear_grad(cpu, shape, x, weight, dy, dx, dweight, dbias); });
}

#define DS_INSTANTIATE(T)                                                                        \
  template void linear<T>(Stream, const LinearShape&, const T*, const float*, const float*, T*); \
  template void linear_grad<T>(Stream, const LinearShape&, const T*, const float*, const T*, T*, float*, float*);
DS_INSTANTIATE(float)
DS_INSTANTIATE(bf16)
#undef DS_INSTANTIATE

}  // namespace depthstill::cuda
