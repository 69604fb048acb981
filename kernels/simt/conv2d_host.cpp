// This file stands in for cuDNN where not even its headers are there to simulate it by, so that whole networks run on
// the emulated device: it is the CPU's convolution on what is host memory anyway.
#include <algorithm>

#include "kernels/conv2d/conv2d.h"
#include "kernels/core/dry_run.h"
#include "kernels/simt/queue.h"

namespace depthstill::cuda {

template <class T>
void conv2d(Stream stream, const Conv2dShape& shape, Activation act, const T* x, const float* weight, const float* bias,
            T* y) {
  if (dry_running()) return record_library_call("conv2d");
  simt::submit_on_cpu(stream, [=](Stream cpu) { cpu::conv2d(cpu, shape, act, x, weight, bias, y); });
}
// This is as with all of it fused in cuDNN, but for the normalised map.
template <class T>
void batch_norm_conv2d(Stream stream, const Conv2dShape& s, const BatchNormInput& norm, const T* x, const float* weight,
                       const float* mean_guess, T* z, T* y, float* moments) {
  const bool normed = norm.mean != nullptr;
  const int64_t rows = s.N * s.P() * s.Q();
  if (normed) {
    batch_norm(stream, s.N * s.H * s.W, static_cast<int>(s.C), norm, x, z);
  }
  conv2d<T>(stream, s, Activation::kNone, normed ? z : x, weight, nullptr, y);
  if (!moments) return;
  if (!dry_running()) {
    simt::submit(stream.handle, [=, channels = s.O] {
      std::fill_n(moments, 2 * channels, 0.0f);
      for (int64_t i = 0; i < rows * channels; ++i) {
        const int64_t c = i % channels;
        const float d = static_cast<float>(y[i]) - mean_guess[c];
        moments[c] += d;
        moments[channels + c] += d * d;
      }
    });
  }
  batch_norm_moments_of_sums(stream, rows, static_cast<int>(s.O), y, mean_guess, moments);
}
template <class T>
void conv2d_grad(Stream stream, const Conv2dShape& shape, Activation act, const T* x, const float* weight, const T* y,
                 T* dy, const Conv2dGradients<T>& to) {
  if (dry_running()) return record_library_call("conv2d gradient");
  simt::submit_on_cpu(stream, [=](Stream cpu) { cpu::conv2d_grad(cpu, shape, act, x, weight, y, dy, to); });
}

#define DS_INSTANTIATE(T)                                                                                       \
  template void conv2d<T>(Stream, const Conv2dShape&, Activation, const T*, const float*, const float*, T*);    \
  template void batch_norm_conv2d<T>(Stream, const Conv2dShape&, const BatchNormInput&, const T*, const float*, \
                                     const float*, T*, T*, float*);                                             \
  template void conv2d_grad<T>(Stream, const Conv2dShape&, Activation, const T*, const float*, const T*, T*,    \
                               const Conv2dGradients<T>&);
DS_INSTANTIATE(float)
DS_INSTANTIATE(bf16)
#undef DS_INSTANTIATE

}  // namespace depthstill::cuda
