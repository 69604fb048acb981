#include <cmath>

#include "kernels/core/launch.h"
#include "kernels/core/pack.cuh"
#include "kernels/gelu.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;

struct Math {
  __device__ static float erf(float x) { return erff(x); }
  __device__ static float exp(float x) { return expf(x); }
  __device__ static float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
};

// One thread per pack of N elements, the last n % N elements one by one: no precondition on n. Moves 2 * sizeof(T)
// bytes per element; y may be x. Bound: DRAM.
template <GeluKind kind, int N, class T>
__global__ void __launch_bounds__(kThreads) gelu_kernel(int64_t n, const T* x, T* y) {
  for (const int64_t i : grid_stride(n / N)) {
    float v[N];
    load_floats(x + i * N, v);
#pragma unroll
    for (int k = 0; k < N; ++k) v[k] = gelu_of<kind, Math>(v[k]);
    store_floats(y + i * N, v);
  }
  const int64_t done = n / N * N;
  for (const int64_t i : grid_stride(n - done)) {
    y[done + i] = static_cast<T>(gelu_of<kind, Math>(static_cast<float>(x[done + i])));
  }
}

// dx = dy * slope(x). The same geometry, 3 * sizeof(T) bytes per element; dx may be dy. Bound: DRAM.
template <GeluKind kind, int N, class T>
__global__ void __launch_bounds__(kThreads) gelu_grad_kernel(int64_t n, const T* x, const T* dy, T* dx) {
  for (const int64_t i : grid_stride(n / N)) {
    float v[N], g[N];
    load_floats(x + i * N, v);
    load_floats(dy + i * N, g);
#pragma unroll
    for (int k = 0; k < N; ++k) g[k] *= gelu_slope<kind, Math>(v[k]);
    store_floats(dx + i * N, g);
  }
  const int64_t done = n / N * N;
  for (const int64_t i : grid_stride(n - done)) {
    const float slope = gelu_slope<kind, Math>(static_cast<float>(x[done + i]));
    dx[done + i] = static_cast<T>(static_cast<float>(dy[done + i]) * slope);
  }
}

}  // namespace

template <class T>
void gelu(Stream stream, int64_t n, GeluKind kind, const T* x, T* y) {
  constexpr int kPack = kPackSize<T>;
  visit_pack<kPack>(packable<kPack>(0, x, y), [&]<int N>() {
    launch(kind == GeluKind::kErf ? gelu_kernel<GeluKind::kErf, N, T> : gelu_kernel<GeluKind::kTanh, N, T>,
           blocks_for(n / N + n % N, kThreads, kLoopBlocks), kThreads, 0, stream, n, x, y);
  });
}

template <class T>
void gelu_grad(Stream stream, int64_t n, GeluKind kind, const T* x, const T* dy, T* dx) {
  constexpr int kPack = kPackSize<T>;
  visit_pack<kPack>(packable<kPack>(0, x, dy, dx), [&]<int N>() {
    launch(kind == GeluKind::kErf ? gelu_grad_kernel<GeluKind::kErf, N, T> : gelu_grad_kernel<GeluKind::kTanh, N, T>,
           blocks_for(n / N + n % N, kThreads, kLoopBlocks), kThreads, 0, stream, n, x, dy, dx);
  });
}

template void gelu(Stream, int64_t, GeluKind, const float*, float*);
template void gelu(Stream, int64_t, GeluKind, const bf16*, bf16*);
template void gelu_grad(Stream, int64_t, GeluKind, const float*, const float*, float*);
template void gelu_grad(Stream, int64_t, GeluKind, const bf16*, const bf16*, bf16*);

}  // namespace depthstill::cuda
