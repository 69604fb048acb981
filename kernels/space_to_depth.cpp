#include "kernels/space_to_depth.h"

#include <algorithm>

#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

constexpr int64_t kGrainElements = 1 << 15;  // worth a thread

// f(offset of a run in the wide map, offset in the deep one) for every run, row by row of the wide map.
template <class F>
void for_runs(const SpaceToDepthShape& s, const F& f) {
  const int64_t Q = s.Q(), run = s.run();
  parallel_for(s.N * s.H, 1 + kGrainElements / (Q * run + 1), [&](int64_t row) {
    const int64_t p = row / s.block, r = row % s.block;
    for (int64_t q = 0; q < Q; ++q) f((row * Q + q) * run, ((p * Q + q) * s.block + r) * run);
  });
}

}  // namespace

template <class T>
void space_to_depth(Stream, const SpaceToDepthShape& shape, const T* wide, T* deep) {
  for_runs(shape, [&](int64_t w, int64_t d) { std::copy_n(wide + w, shape.run(), deep + d); });
}

template <class T>
void depth_to_space(Stream, const SpaceToDepthShape& shape, const T* deep, const float* bias, T* wide) {
  if (bias == nullptr) {
    for_runs(shape, [&](int64_t w, int64_t d) { std::copy_n(deep + d, shape.run(), wide + w); });
    return;
  }
  for_runs(shape, [&](int64_t w, int64_t d) {
    for (int64_t s = 0; s < shape.block; ++s) {
      const T* from = deep + d + s * shape.C;
      T* to = wide + w + s * shape.C;
      for (int64_t c = 0; c < shape.C; ++c) to[c] = static_cast<T>(static_cast<float>(from[c]) + bias[c]);
    }
  });
}

template void space_to_depth(Stream, const SpaceToDepthShape&, const float*, float*);
template void space_to_depth(Stream, const SpaceToDepthShape&, const bf16*, bf16*);
template void depth_to_space(Stream, const SpaceToDepthShape&, const float*, const float*, float*);
template void depth_to_space(Stream, const SpaceToDepthShape&, const bf16*, const float*, bf16*);

}  // namespace depthstill::cpu
