#include "kernels/scale.h"

#include "kernels/core/parallel.h"

namespace depthstill::cpu {

template <class T>
void scale(Stream, int64_t n, float factor, const T* x, T* y) {
  parallel_ranges(n, 16384, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) y[i] = static_cast<T>(factor * static_cast<float>(x[i]));
  });
}

template void scale(Stream, int64_t, float, const float*, float*);
template void scale(Stream, int64_t, float, const bf16*, bf16*);

}  // namespace depthstill::cpu
