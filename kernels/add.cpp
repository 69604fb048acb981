#include "kernels/add.h"

#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {
constexpr int64_t kGrain = 1 << 15;  // below this, starting threads costs more than the addition
}

template <class T>
void add(Stream, int64_t n, const T* a, const T* b, T* y) {
  parallel_ranges(n, kGrain, [=](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) y[i] = static_cast<T>(static_cast<float>(a[i]) + static_cast<float>(b[i]));
  });
}

template void add(Stream, int64_t, const float*, const float*, float*);
template void add(Stream, int64_t, const bf16*, const bf16*, bf16*);

}  // namespace depthstill::cpu
