#include "kernels/swiglu.h"

#include "kernels/core/channels.h"
#include "kernels/core/parallel.h"
#include "kernels/core/vector_math.h"

namespace depthstill::cpu {
namespace {

int64_t grain_rows(int64_t channels) { return (1 << 13) / channels + 1; }

}  // namespace

template <class T>
void swiglu(Stream, int64_t rows, int64_t channels, const T* x, T* y) {
  parallel_for(rows, grain_rows(channels), [&](int64_t row) {
    const T* x_row = x + row * 2 * channels;
    for_blocks(0, channels, [&](int64_t first, int64_t count) {
      float a_room[kBlock], b_room[kBlock], y_room[kBlock];
      const float* a = floats(x_row + first, count, a_room);
      const float* b = floats(x_row + channels + first, count, b_room);
      float* to = place(y + row * channels + first, y_room);
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) to[i] = a[i] * vector_sigmoid(a[i]) * b[i];
      finish(y + row * channels + first, count, y_room);
    });
  });
}

template <class T>
void swiglu_grad(Stream, int64_t rows, int64_t channels, const T* x, const T* dy, T* dx) {
  parallel_for(rows, grain_rows(channels), [&](int64_t row) {
    const int64_t at = row * 2 * channels;
    for_blocks(0, channels, [&](int64_t first, int64_t count) {
      float a_room[kBlock], b_room[kBlock], g_room[kBlock], da_room[kBlock], db_room[kBlock];
      const float* a = floats(x + at + first, count, a_room);
      const float* b = floats(x + at + channels + first, count, b_room);
      const float* g = floats(dy + row * channels + first, count, g_room);
      float* da = place(dx + at + first, da_room);
      float* db = place(dx + at + channels + first, db_room);
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) {
        const float v = a[i], gate = b[i], d = g[i], s = vector_sigmoid(v);
        da[i] = d * gate * s * (1.0f + v * (1.0f - s));
        db[i] = d * v * s;
      }
      finish(dx + at + first, count, da_room);
      finish(dx + at + channels + first, count, db_room);
    });
  });
}

template void swiglu(Stream, int64_t, int64_t, const float*, float*);
template void swiglu(Stream, int64_t, int64_t, const bf16*, bf16*);
template void swiglu_grad(Stream, int64_t, int64_t, const float*, const float*, float*);
template void swiglu_grad(Stream, int64_t, int64_t, const bf16*, const bf16*, bf16*);

}  // namespace depthstill::cpu
