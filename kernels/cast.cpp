#include "kernels/cast.h"

#include "kernels/core/lanes.h"
#include "kernels/core/parallel.h"

namespace depthstill::cpu {

template <class From, class To>
void cast(Stream, int64_t n, const From* x, To* y) {
  parallel_ranges(n, 16384, [&](int64_t begin, int64_t end, int) {
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) store_lanes(y + i, load_lanes(x + i));
    for (; i < end; ++i) y[i] = static_cast<To>(static_cast<float>(x[i]));
  });
}

template void cast(Stream, int64_t, const float*, bf16*);
template void cast(Stream, int64_t, const bf16*, float*);

}  // namespace depthstill::cpu
