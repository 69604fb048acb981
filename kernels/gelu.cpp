#include "kernels/gelu.h"

#include "kernels/core/channels.h"
#include "kernels/core/parallel.h"
#include "kernels/core/vector_math.h"

namespace depthstill::cpu {
namespace {

constexpr int64_t kGrain = 1 << 13;  // elements worth a thread

struct VectorMath {
  static float erf(float x) { return vector_erf(x); }
  static float exp(float x) { return vector_exp(x); }
  static float sigmoid(float x) { return vector_sigmoid(x); }
};

template <class F>
void visit(GeluKind kind, F f) {
  kind == GeluKind::kErf ? f.template operator()<GeluKind::kErf>() : f.template operator()<GeluKind::kTanh>();
}

}  // namespace

// `omp simd`: the arrays are the same or do not overlap, so that no test at run time is needed to vectorise.
template <class T>
void gelu(Stream, int64_t n, GeluKind kind, const T* x, T* y) {
  visit(kind, [&]<GeluKind k>() {
    parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end, int) {
      for_blocks(begin, end, [&](int64_t first, int64_t count) {
        float x_room[kBlock], y_room[kBlock];
        const float* from = floats(x + first, count, x_room);
        float* to = place(y + first, y_room);
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) to[i] = gelu_of<k, VectorMath>(from[i]);
        finish(y + first, count, y_room);
      });
    });
  });
}

template <class T>
void gelu_grad(Stream, int64_t n, GeluKind kind, const T* x, const T* dy, T* dx) {
  visit(kind, [&]<GeluKind k>() {
    parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end, int) {
      for_blocks(begin, end, [&](int64_t first, int64_t count) {
        float x_room[kBlock], dy_room[kBlock], dx_room[kBlock];
        const float* from = floats(x + first, count, x_room);
        const float* g = floats(dy + first, count, dy_room);
        float* to = place(dx + first, dx_room);
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) to[i] = g[i] * gelu_slope<k, VectorMath>(from[i]);
        finish(dx + first, count, dx_room);
      });
    });
  });
}

template void gelu(Stream, int64_t, GeluKind, const float*, float*);
template void gelu(Stream, int64_t, GeluKind, const bf16*, bf16*);
template void gelu_grad(Stream, int64_t, GeluKind, const float*, const float*, float*);
template void gelu_grad(Stream, int64_t, GeluKind, const bf16*, const bf16*, bf16*);

}  // namespace depthstill::cpu
