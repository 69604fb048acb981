#include "kernels/rows.h"

#include <algorithm>
#include <cstring>

#include "kernels/core/parallel.h"

namespace depthstill::cpu {

template <class T>
void shift_rows(Stream, const RowsShape& s, const T* x, T* y) {
  const bool slices = s.x_channels != s.channels || s.y_channels != s.channels;
  const int64_t pieces = slices ? s.width : 1;  // pieces of a row, each of which lies together
  const int64_t size = slices ? s.channels : s.width * s.channels;
  const size_t bytes = static_cast<size_t>(size) * sizeof(T);
  const int64_t grain = 16384 / std::max<int64_t>(s.width * s.channels, 1) + 1;
  parallel_for(s.batch * s.out_rows, grain, [&](int64_t row) {
    const int64_t from_row = row % s.out_rows + s.shift;
    const bool exists = from_row >= 0 && from_row < s.in_rows;
    const T* from = x + (row / s.out_rows * s.in_rows + (exists ? from_row : 0)) * s.width * s.x_channels;
    T* to = y + row * s.width * s.y_channels;
    for (int64_t piece = 0; piece < pieces; ++piece, from += s.x_channels, to += s.y_channels) {
      if (exists) {
        std::memcpy(to, from, bytes);
      } else {
        std::memset(static_cast<void*>(to), 0, bytes);
      }
    }
  });
}

template void shift_rows(Stream, const RowsShape&, const float*, float*);
template void shift_rows(Stream, const RowsShape&, const bf16*, bf16*);

}  // namespace depthstill::cpu
