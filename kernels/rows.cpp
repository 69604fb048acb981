#include "kernels/rows.h"

#include <algorithm>
#include <cstring>

#include "kernels/parallel.h"

namespace depthstill::cpu {

template <class T>
void shift_rows(Stream, int64_t batch, int64_t in_rows, int64_t out_rows, int64_t row_size, int64_t shift, const T* x,
                T* y) {
  const int64_t grain = 16384 / std::max<int64_t>(row_size, 1) + 1;
  const size_t row_bytes = static_cast<size_t>(row_size) * sizeof(T);
  parallel_for(batch * out_rows, grain, [&](int64_t row) {
    const int64_t from = row % out_rows + shift;
    T* to = y + row * row_size;
    if (from >= 0 && from < in_rows) {
      std::memcpy(to, x + (row / out_rows * in_rows + from) * row_size, row_bytes);
    } else {
      std::memset(static_cast<void*>(to), 0, row_bytes);
    }
  });
}

template void shift_rows(Stream, int64_t, int64_t, int64_t, int64_t, int64_t, const float*, float*);
template void shift_rows(Stream, int64_t, int64_t, int64_t, int64_t, int64_t, const bf16*, bf16*);

}  // namespace depthstill::cpu
