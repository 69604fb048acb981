#include "kernels/bias_activation.h"
#include "kernels/core/launch.h"
#include "kernels/core/pack.cuh"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;

// One thread per pack of N channels; grid-stride. Reads and writes y once: 8 B per fp32 element, 4 B per bf16.
// Precondition: channels % N == 0.
template <class T, int N, Activation kind>
__global__ void bias_activation_kernel(int64_t packs, int channels, const float* bias, T* y) {
  for (const int64_t i : grid_stride(packs)) {
    const int c = static_cast<int>(i * N % channels);
    float values[N];
    load_floats(y + i * N, values);
    for (int k = 0; k < N; ++k) values[k] = activate<kind>(values[k] + (bias != nullptr ? bias[c + k] : 0.0f));
    store_floats(y + i * N, values);
  }
}

}  // namespace

template <class T>
void bias_activation(Stream stream, int64_t rows, int channels, Activation act, const float* bias, T* y) {
  constexpr int kPack = kPackSize<T>;
  visit(act, [&]<Activation kind>() {
    if (packable<kPack>(channels, y)) {
      const int64_t packs = rows * (channels / kPack);
      launch(bias_activation_kernel<T, kPack, kind>, blocks_for(packs, kThreads), kThreads, 0, stream, packs, channels,
             bias, y);
    } else {
      const int64_t packs = rows * channels;
      launch(bias_activation_kernel<T, 1, kind>, blocks_for(packs, kThreads), kThreads, 0, stream, packs, channels,
             bias, y);
    }
  });
}

template void bias_activation<float>(Stream, int64_t, int, Activation, const float*, float*);
template void bias_activation<bf16>(Stream, int64_t, int, Activation, const float*, bf16*);

}  // namespace depthstill::cuda
