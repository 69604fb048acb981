#include "kernels/core/launch.h"
#include "kernels/core/pack.cuh"
#include "kernels/pointwise.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;

// y = f(x) over n elements, a thread to a pack, the last ones one by one. Moves 2 * sizeof(T) bytes per element. Bound:
// DRAM.
template <UnaryKind kind, int kPack, class T>
__global__ void __launch_bounds__(kThreads) unary_kernel(float p, int64_t n, const T* x, T* y) {
  for (const int64_t i : grid_stride(n / kPack)) {
    float values[kPack];
    load_floats(x + i * kPack, values);
#pragma unroll
    for (int k = 0; k < kPack; ++k) values[k] = unary_value<kind>(values[k], p);
    store_floats(y + i * kPack, values);
  }
  const int64_t done = n / kPack * kPack;
  for (const int64_t i : grid_stride(n - done))
    y[done + i] = static_cast<T>(unary_value<kind>(static_cast<float>(x[done + i]), p));
}

// dx = f'(x) dy, as above: 3 * sizeof(T) bytes per element.
template <UnaryKind kind, int kPack, class T>
__global__ void __launch_bounds__(kThreads) unary_grad_kernel(float p, int64_t n, const T* x, const T* dy, T* dx) {
  for (const int64_t i : grid_stride(n / kPack)) {
    float values[kPack], slopes[kPack];
    load_floats(x + i * kPack, values);
    load_floats(dy + i * kPack, slopes);
#pragma unroll
    for (int k = 0; k < kPack; ++k) values[k] = unary_gradient<kind>(values[k], p, slopes[k]);
    store_floats(dx + i * kPack, values);
  }
  const int64_t done = n / kPack * kPack;
  for (const int64_t i : grid_stride(n - done)) {
    dx[done + i] =
        static_cast<T>(unary_gradient<kind>(static_cast<float>(x[done + i]), p, static_cast<float>(dy[done + i])));
  }
}

// y = f(a, b): 3 * sizeof(T) bytes per element.
template <BinaryKind kind, int kPack, class T>
__global__ void __launch_bounds__(kThreads) binary_kernel(int64_t n, const T* a, const T* b, T* y) {
  for (const int64_t i : grid_stride(n / kPack)) {
    float left[kPack], right[kPack];
    load_floats(a + i * kPack, left);
    load_floats(b + i * kPack, right);
#pragma unroll
    for (int k = 0; k < kPack; ++k) left[k] = binary_value<kind>(left[k], right[k]);
    store_floats(y + i * kPack, left);
  }
  const int64_t done = n / kPack * kPack;
  for (const int64_t i : grid_stride(n - done)) {
    y[done + i] = static_cast<T>(binary_value<kind>(static_cast<float>(a[done + i]), static_cast<float>(b[done + i])));
  }
}

// da and db, of which either may be null: up to 5 * sizeof(T) bytes per element.
template <BinaryKind kind, int kPack, class T>
__global__ void __launch_bounds__(kThreads)
    binary_grad_kernel(int64_t n, const T* a, const T* b, const T* dy, T* da, T* db) {
  for (const int64_t i : grid_stride(n / kPack)) {
    float left[kPack], right[kPack], slopes[kPack];
    load_floats(a + i * kPack, left);
    load_floats(b + i * kPack, right);
    load_floats(dy + i * kPack, slopes);
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      const BinaryGradient d = binary_gradient<kind>(left[k], right[k], slopes[k]);
      left[k] = d.da;
      right[k] = d.db;
    }
    if (da) store_floats(da + i * kPack, left);
    if (db) store_floats(db + i * kPack, right);
  }
  const int64_t done = n / kPack * kPack;
  for (const int64_t i : grid_stride(n - done)) {
    const BinaryGradient d = binary_gradient<kind>(static_cast<float>(a[done + i]), static_cast<float>(b[done + i]),
                                                   static_cast<float>(dy[done + i]));
    if (da) da[done + i] = static_cast<T>(d.da);
    if (db) db[done + i] = static_cast<T>(d.db);
  }
}

// Threads of a launch over n elements that are taken in packs.
template <int kPack>
unsigned blocks_of(bool aligned, int64_t n) {
  return blocks_for(aligned ? n / kPack + n % kPack : n, kThreads, kLoopBlocks);
}

}  // namespace

template <class T>
void unary(Stream stream, UnaryKind kind, float p, int64_t n, const T* x, T* y) {
  constexpr int kPack = kPackSize<T>;
  const bool aligned = packable<kPack>(0, x, y);
  visit_unary(kind, [&]<UnaryKind k>() {
    launch(aligned ? unary_kernel<k, kPack, T> : unary_kernel<k, 1, T>, blocks_of<kPack>(aligned, n), kThreads, 0,
           stream, p, n, x, y);
  });
}

template <class T>
void unary_grad(Stream stream, UnaryKind kind, float p, int64_t n, const T* x, const T* dy, T* dx) {
  constexpr int kPack = kPackSize<T>;
  const bool aligned = packable<kPack>(0, x, dy, dx);
  visit_unary(kind, [&]<UnaryKind k>() {
    launch(aligned ? unary_grad_kernel<k, kPack, T> : unary_grad_kernel<k, 1, T>, blocks_of<kPack>(aligned, n),
           kThreads, 0, stream, p, n, x, dy, dx);
  });
}

template <class T>
void binary(Stream stream, BinaryKind kind, int64_t n, const T* a, const T* b, T* y) {
  constexpr int kPack = kPackSize<T>;
  const bool aligned = packable<kPack>(0, a, b, y);
  visit_binary(kind, [&]<BinaryKind k>() {
    launch(aligned ? binary_kernel<k, kPack, T> : binary_kernel<k, 1, T>, blocks_of<kPack>(aligned, n), kThreads, 0,
           stream, n, a, b, y);
  });
}

template <class T>
void binary_grad(Stream stream, BinaryKind kind, int64_t n, const T* a, const T* b, const T* dy, T* da, T* db) {
  constexpr int kPack = kPackSize<T>;
  const bool aligned = packable<kPack>(0, a, b, dy, da, db);
  visit_binary(kind, [&]<BinaryKind k>() {
    launch(aligned ? binary_grad_kernel<k, kPack, T> : binary_grad_kernel<k, 1, T>, blocks_of<kPack>(aligned, n),
           kThreads, 0, stream, n, a, b, dy, da, db);
  });
}

template void unary(Stream, UnaryKind, float, int64_t, const float*, float*);
template void unary(Stream, UnaryKind, float, int64_t, const bf16*, bf16*);
template void unary_grad(Stream, UnaryKind, float, int64_t, const float*, const float*, float*);
template void unary_grad(Stream, UnaryKind, float, int64_t, const bf16*, const bf16*, bf16*);
template void binary(Stream, BinaryKind, int64_t, const float*, const float*, float*);
template void binary(Stream, BinaryKind, int64_t, const bf16*, const bf16*, bf16*);
template void binary_grad(Stream, BinaryKind, int64_t, const float*, const float*, const float*, float*, float*);
template void binary_grad(Stream, BinaryKind, int64_t, const bf16*, const bf16*, const bf16*, bf16*, bf16*);

}  // namespace depthstill::cuda
