#include "kernels/core/launch.h"
#include "kernels/core/pack.cuh"
#include "kernels/max_pool2d.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;

// A thread's N channels of one position (n, h, w) of a map with `groups` packs of channels.
struct Position {
  int64_t n, h, w;
  int c;

  __device__ Position(int64_t i, int64_t height, int64_t width, int groups, int N) {
    c = static_cast<int>(i % groups) * N;
    w = i / groups % width;
    h = i / groups / width % height;
    n = i / groups / width / height;
  }
};

__device__ __forceinline__ int64_t largest(int64_t a, int64_t b) { return a > b ? a : b; }
__device__ __forceinline__ int64_t smallest(int64_t a, int64_t b) { return a < b ? a : b; }

// y and index, one thread per N channels of an output. Reads x once if the caches keep kernel rows, writes y and a byte
// per element. Precondition: C % N == 0.
template <class T, int N>
__global__ void max_pool2d_kernel(MaxPoolShape s, int64_t count, const T* __restrict__ x, T* __restrict__ y,
                                  uint8_t* __restrict__ index) {
  for (const int64_t i : grid_stride(count)) {
    const Position at(i, s.P(), s.Q(), static_cast<int>(s.C) / N, N);
    const int64_t top = at.h * s.stride - s.pad, left = at.w * s.stride - s.pad;
    float best[N] = {};
    Pack<uint8_t, N> where = {};
    bool first = true;
    for (int64_t h = largest(top, 0); h < smallest(top + s.kernel, s.H); ++h) {
      for (int64_t w = largest(left, 0); w < smallest(left + s.kernel, s.W); ++w) {
        const auto tap = static_cast<uint8_t>((h - top) * s.kernel + (w - left));
        float v[N];
        load_floats(x + ((at.n * s.H + h) * s.W + w) * s.C + at.c, v);
#pragma unroll
        for (int k = 0; k < N; ++k) {
          if (first || v[k] > best[k] || v[k] != v[k]) {
            best[k] = v[k];
            where.lane[k] = tap;
          }
        }
        first = false;
      }
    }
    store_floats(y + i * N, best);
    if (index != nullptr) store_pack(index + i * N, where);
  }
}

// dx, one thread per N channels of an input. Reads dy and index once if the caches keep the windows' rows, writes dx.
template <class T, int N>
__global__ void max_pool2d_grad_kernel(MaxPoolShape s, int64_t count, const T* __restrict__ dy,
                                       const uint8_t* __restrict__ index, T* __restrict__ dx) {
  for (const int64_t i : grid_stride(count)) {
    const Position at(i, s.H, s.W, static_cast<int>(s.C) / N, N);
    const int64_t bottom = at.h + s.pad, right = at.w + s.pad;
    const int64_t first_p = bottom < s.kernel ? 0 : (bottom - s.kernel) / s.stride + 1;
    const int64_t first_q = right < s.kernel ? 0 : (right - s.kernel) / s.stride + 1;
    float sum[N] = {};
    for (int64_t p = first_p; p < smallest(bottom / s.stride + 1, s.P()); ++p) {
      for (int64_t q = first_q; q < smallest(right / s.stride + 1, s.Q()); ++q) {
        const auto tap = static_cast<uint8_t>((bottom - p * s.stride) * s.kernel + (right - q * s.stride));
        const int64_t from = ((at.n * s.P() + p) * s.Q() + q) * s.C + at.c;
        const auto where = load_pack<N>(index + from);
        float v[N];
        load_floats(dy + from, v);
#pragma unroll
        for (int k = 0; k < N; ++k) sum[k] += where.lane[k] == tap ? v[k] : 0.0f;
      }
    }
    store_floats(dx + i * N, sum);
  }
}

}  // namespace

template <class T>
void max_pool2d(Stream stream, const MaxPoolShape& s, const T* x, T* y, uint8_t* index) {
  constexpr int kPack = kPackSize<T>;
  visit_pack<kPack>(packable<kPack>(s.C, x, y, index), [&]<int N>() {
    const int64_t count = s.N * s.P() * s.Q() * (s.C / N);
    launch(max_pool2d_kernel<T, N>, blocks_for(count, kThreads, kLoopBlocks), kThreads, 0, stream, s, count, x, y,
           index);
  });
}

template <class T>
void max_pool2d_grad(Stream stream, const MaxPoolShape& s, const T* dy, const uint8_t* index, T* dx) {
  constexpr int kPack = kPackSize<T>;
  visit_pack<kPack>(packable<kPack>(s.C, dy, index, dx), [&]<int N>() {
    const int64_t count = s.N * s.H * s.W * (s.C / N);
    launch(max_pool2d_grad_kernel<T, N>, blocks_for(count, kThreads, kLoopBlocks), kThreads, 0, stream, s, count, dy,
           index, dx);
  });
}

template void max_pool2d(Stream, const MaxPoolShape&, const float*, float*, uint8_t*);
template void max_pool2d(Stream, const MaxPoolShape&, const bf16*, bf16*, uint8_t*);
template void max_pool2d_grad(Stream, const MaxPoolShape&, const float*, const uint8_t*, float*);
template void max_pool2d_grad(Stream, const MaxPoolShape&, const bf16*, const uint8_t*, bf16*);

}  // namespace depthstill::cuda
