#include "kernels/core/launch.h"
#include "kernels/core/pack.cuh"
#include "kernels/rows.h"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;

// y (batch, out_rows, width, channels of y_channels) from x (batch, in_rows, width, channels of x_channels). A block
// takes blockDim.y neighbouring pixels of one row of y, blockDim.x threads share the channels of a pixel; the grid is
// rows * tiles. Moves 2 * sizeof(T) bytes per copied element. Bound: DRAM.
template <int kPack, class T>
__global__ void __launch_bounds__(kThreads)
    shift_rows_kernel(RowsShape s, unsigned tiles, const T* __restrict__ x, T* __restrict__ y) {
  const int64_t row = blockIdx.x / tiles, n = row / s.out_rows, from_row = row - n * s.out_rows + s.shift;
  const int64_t w = static_cast<int64_t>(blockIdx.x % tiles) * blockDim.y + threadIdx.y;
  if (w >= s.width) return;
  const bool exists = from_row >= 0 && from_row < s.in_rows;
  const T* from = x + ((n * s.in_rows + (exists ? from_row : 0)) * s.width + w) * s.x_channels;
  T* to = y + (row * s.width + w) * s.y_channels;
#pragma unroll 4
  for (int64_t c = threadIdx.x * kPack; c < s.channels; c += blockDim.x * kPack) {
    store_pack(to + c, exists ? load_pack<kPack>(from + c) : Pack<T, kPack>{});
  }
}

template <int kPack, class T>
void shift_packs(Stream stream, const RowsShape& s, const T* x, T* y) {
  const dim3 block = block_along_channels(s.channels / kPack, kThreads, kThreads);
  const unsigned tiles = blocks_for(s.width, static_cast<int>(block.y));
  launch(shift_rows_kernel<kPack, T>, blocks_for(s.batch * s.out_rows * tiles, 1), block, 0, stream, s, tiles, x, y);
}

}  // namespace

template <class T>
void shift_rows(Stream stream, const RowsShape& s, const T* x, T* y) {
  constexpr int kPack = kPackSize<T>;
  const bool packs = s.channels % kPack == 0 && s.x_channels % kPack == 0 && packable<kPack>(s.y_channels, x, y);
  packs ? shift_packs<kPack>(stream, s, x, y) : shift_packs<1>(stream, s, x, y);
}

template void shift_rows(Stream, const RowsShape&, const float*, float*);
template void shift_rows(Stream, const RowsShape&, const bf16*, bf16*);

}  // namespace depthstill::cuda
