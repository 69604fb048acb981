#include "kernels/pointwise.h"

#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

constexpr int64_t kGrain = 16384;  // elements worth a thread

}  // namespace

template <class T>
void unary(Stream, UnaryKind kind, float p, int64_t n, const T* x, T* y) {
  visit_unary(kind, [&]<UnaryKind k>() {
    parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) y[i] = static_cast<T>(unary_value<k>(static_cast<float>(x[i]), p));
    });
  });
}

template <class T>
void unary_grad(Stream, UnaryKind kind, float p, int64_t n, const T* x, const T* dy, T* dx) {
  visit_unary(kind, [&]<UnaryKind k>() {
    parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i)
        dx[i] = static_cast<T>(unary_gradient<k>(static_cast<float>(x[i]), p, static_cast<float>(dy[i])));
    });
  });
}

template <class T>
void binary(Stream, BinaryKind kind, int64_t n, const T* a, const T* b, T* y) {
  visit_binary(kind, [&]<BinaryKind k>() {
    parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i)
        y[i] = static_cast<T>(binary_value<k>(static_cast<float>(a[i]), static_cast<float>(b[i])));
    });
  });
}

template <class T>
void binary_grad(Stream, BinaryKind kind, int64_t n, const T* a, const T* b, const T* dy, T* da, T* db) {
  visit_binary(kind, [&]<BinaryKind k>() {
    parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const BinaryGradient d =
            binary_gradient<k>(static_cast<float>(a[i]), static_cast<float>(b[i]), static_cast<float>(dy[i]));
        if (da) da[i] = static_cast<T>(d.da);
        if (db) db[i] = static_cast<T>(d.db);
      }
    });
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

}  // namespace depthstill::cpu
