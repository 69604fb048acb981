#include "kernels/concat.h"
#include "kernels/launch.h"
#include "kernels/pack.cuh"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxBlocks = 8192;

// y (rows, a + b) <-> a (rows, a_channels), b (rows, b_channels). blockDim.x threads take the packs of a row,
// blockDim.y rows per block, grid strides over the rows. Moves 2 * sizeof(T) bytes per element of y. Bound: DRAM.
template <int kPack, class T>
__global__ void __launch_bounds__(kThreads)
    concat_kernel(int64_t rows, int64_t a_channels, int64_t b_channels, const T* __restrict__ a,
                  const T* __restrict__ b, T* __restrict__ y) {
  const int64_t channels = a_channels + b_channels;
  for (int64_t r = blockIdx.x * static_cast<int64_t>(blockDim.y) + threadIdx.y; r < rows;
       r += static_cast<int64_t>(gridDim.x) * blockDim.y) {
    for (int64_t c = threadIdx.x * kPack; c < channels; c += blockDim.x * kPack) {
      const T* from = c < a_channels ? a + r * a_channels + c : b + r * b_channels + (c - a_channels);
      store_pack(y + r * channels + c, load_pack<kPack>(from));
    }
  }
}

template <int kPack, class T>
__global__ void __launch_bounds__(kThreads)
    concat_grad_kernel(int64_t rows, int64_t a_channels, int64_t b_channels, const T* __restrict__ dy,
                       T* __restrict__ da, T* __restrict__ db) {
  const int64_t channels = a_channels + b_channels;
  for (int64_t r = blockIdx.x * static_cast<int64_t>(blockDim.y) + threadIdx.y; r < rows;
       r += static_cast<int64_t>(gridDim.x) * blockDim.y) {
    for (int64_t c = threadIdx.x * kPack; c < channels; c += blockDim.x * kPack) {
      T* part = c < a_channels ? da : db;
      if (part == nullptr) continue;
      part += c < a_channels ? r * a_channels + c : r * b_channels + (c - a_channels);
      store_pack(part, load_pack<kPack>(dy + r * channels + c));
    }
  }
}

// Threads along the channels: a power of two that covers them, at most a warp.
dim3 block_for(int64_t packs) {
  unsigned lanes = 1;
  while (lanes < packs && lanes < 32) lanes *= 2;
  return dim3(lanes, kThreads / lanes);
}

template <class T, class Kernel, class... Arrays>
void launch_rows(Kernel packed, Kernel single, Stream stream, int64_t rows, int64_t a_channels, int64_t b_channels,
                 Arrays... arrays) {
  constexpr int kPack = kPackSize<T>;
  const bool packs = a_channels % kPack == 0 && packable<kPack>(b_channels, arrays...);
  const dim3 block = block_for((a_channels + b_channels) / (packs ? kPack : 1));
  launch(packs ? packed : single, blocks_for(rows, static_cast<int>(block.y), kMaxBlocks), block, 0, stream, rows,
         a_channels, b_channels, arrays...);
}

}  // namespace

template <class T>
void concat(Stream stream, int64_t rows, int64_t a_channels, int64_t b_channels, const T* a, const T* b, T* y) {
  launch_rows<T>(concat_kernel<kPackSize<T>, T>, concat_kernel<1, T>, stream, rows, a_channels, b_channels, a, b, y);
}

template <class T>
void concat_grad(Stream stream, int64_t rows, int64_t a_channels, int64_t b_channels, const T* dy, T* da, T* db) {
  launch_rows<T>(concat_grad_kernel<kPackSize<T>, T>, concat_grad_kernel<1, T>, stream, rows, a_channels, b_channels,
                 dy, da, db);
}

template void concat(Stream, int64_t, int64_t, int64_t, const float*, const float*, float*);
template void concat(Stream, int64_t, int64_t, int64_t, const bf16*, const bf16*, bf16*);
template void concat_grad(Stream, int64_t, int64_t, int64_t, const float*, float*, float*);
template void concat_grad(Stream, int64_t, int64_t, int64_t, const bf16*, bf16*, bf16*);

}  // namespace depthstill::cuda
