#include "kernels/launch.h"
#include "kernels/pack.cuh"
#include "kernels/rows.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPacksPerThread = 4;

// y (batch, out_rows, row_size) from x (batch, in_rows, row_size). A block takes a piece of kThreads * kPacksPerThread
// packs of one row of y; grid = rows * pieces. Moves 2 * sizeof(T) bytes per copied element. Bound: DRAM.
template <int kPack, class T>
__global__ void __launch_bounds__(kThreads)
    shift_rows_kernel(int64_t in_rows, int64_t out_rows, int64_t row_size, int64_t shift, unsigned pieces,
                      const T* __restrict__ x, T* __restrict__ y) {
  const int64_t row = blockIdx.x / pieces, n = row / out_rows, from_row = row - n * out_rows + shift;
  const bool exists = from_row >= 0 && from_row < in_rows;
  const T* from = x + (n * in_rows + (exists ? from_row : 0)) * row_size;
  T* to = y + row * row_size;
  const int64_t begin = static_cast<int64_t>(blockIdx.x % pieces) * (kThreads * kPacksPerThread * kPack);
#pragma unroll
  for (int k = 0; k < kPacksPerThread; ++k) {
    const int64_t i = begin + (static_cast<int64_t>(k) * kThreads + threadIdx.x) * kPack;
    if (i < row_size) store_pack(to + i, exists ? load_pack<kPack>(from + i) : Pack<T, kPack>{});
  }
}

template <int kPack, class T>
void shift_packs(Stream stream, int64_t batch, int64_t in_rows, int64_t out_rows, int64_t row_size, int64_t shift,
                 const T* x, T* y) {
  const unsigned pieces = blocks_for(row_size, kThreads * kPacksPerThread * kPack);
  launch(shift_rows_kernel<kPack, T>, blocks_for(batch * out_rows * pieces, 1), kThreads, 0, stream, in_rows, out_rows,
         row_size, shift, pieces, x, y);
}

}  // namespace

template <class T>
void shift_rows(Stream stream, int64_t batch, int64_t in_rows, int64_t out_rows, int64_t row_size, int64_t shift,
                const T* x, T* y) {
  packable<kPackSize<T>>(row_size, x, y)
      ? shift_packs<kPackSize<T>>(stream, batch, in_rows, out_rows, row_size, shift, x, y)
      : shift_packs<1>(stream, batch, in_rows, out_rows, row_size, shift, x, y);
}

template void shift_rows(Stream, int64_t, int64_t, int64_t, int64_t, int64_t, const float*, float*);
template void shift_rows(Stream, int64_t, int64_t, int64_t, int64_t, int64_t, const bf16*, bf16*);

}  // namespace depthstill::cuda
