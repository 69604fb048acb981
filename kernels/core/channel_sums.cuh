// Sums over rows of a (rows, channels) array, per channel, without atomics: every block sums a chunk of rows for a slab
// of kSlab channels into `partial` (chunks, K, channels); then sum_chunks adds the chunks up in a fixed order.
#pragma once

#include "kernels/core/launch.h"
#include "kernels/core/pack.cuh"
#include "kernels/core/warp.cuh"

namespace depthstill {

// ChannelSums says how the rows are shared out, which does not depend on the device, so neither do the results.
struct ChannelSums {
  static constexpr int kSlab = 32;  // channels of a block: 64 B of bf16, 128 B of float per row
  static constexpr int kThreads = 128;
  static constexpr int kBlocks = 2048;  // blocks wanted in all: 15 per SM of an H100, so that the tail is short
  static constexpr int kMinRows = 256;  // rows of a chunk

  int64_t rows, rows_per_chunk;
  int channels, chunks, slabs;

  ChannelSums(int64_t rows_, int channels_, int64_t min_rows = kMinRows) : rows(rows_), channels(channels_) {
    check(rows > 0 && channels > 0, "channel sums: expected at least one row and channel, got ", rows, " x ", channels);
    slabs = (channels + kSlab - 1) / kSlab;
    const int64_t wanted = kBlocks / slabs + 1, most = (rows + min_rows - 1) / min_rows;
    const int64_t count = wanted < most ? wanted : most;
    rows_per_chunk = (rows + count - 1) / count;
    chunks = static_cast<int>((rows + rows_per_chunk - 1) / rows_per_chunk);
  }
  dim3 grid() const { return dim3(static_cast<unsigned>(chunks), static_cast<unsigned>(slabs)); }
  size_t partial_floats(int sums) const { return static_cast<size_t>(chunks) * sums * channels; }
};

// A thread's place in the block: channels channel .. channel + N - 1 (beyond the last channel if !inside), and the rows
// begin, begin + kRowStep, ... before end of the block's chunk.
template <int N>
struct ChannelThread {
  static constexpr int kGroups = ChannelSums::kSlab / N;
  static constexpr int kRowStep = ChannelSums::kThreads / kGroups;

  int channel;
  bool inside;
  int64_t chunk_begin, begin, end;

  __device__ explicit ChannelThread(const ChannelSums& sums) {
    const int thread = static_cast<int>(threadIdx.x);
    channel = static_cast<int>(blockIdx.y) * ChannelSums::kSlab + thread % kGroups * N;
    inside = channel < sums.channels;
    chunk_begin = blockIdx.x * sums.rows_per_chunk;
    begin = chunk_begin + thread / kGroups;
    end = chunk_begin + sums.rows_per_chunk;
    if (end > sums.rows) end = sums.rows;
  }
};

// Writes the block's sums of `values` (K sums of N channels per thread) to its place in `partial`. All threads must
// call it. One barrier; shared memory: 4 warps x K x 32 floats.
template <int K, int N>
__device__ static void store_chunk_sums(const ChannelSums& sums, float (&values)[K][N], float* partial) {
  constexpr int kWarps = ChannelSums::kThreads / kWarpSize, kSlab = ChannelSums::kSlab;
  constexpr int kGroups = ChannelThread<N>::kGroups;
  __shared__ float warp_sums[kWarps][K][kSlab];
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarpSize, lane = thread % kWarpSize;
#pragma unroll
  for (int k = 0; k < K; ++k) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      float value = values[k][i];
#pragma unroll
      for (int offset = kWarpSize / 2; offset >= kGroups; offset /= 2) {  // lanes of the same channels
        value += __shfl_xor_sync(kAllLanes, value, offset);
      }
      if (lane < kGroups) warp_sums[warp][k][lane * N + i] = value;
    }
  }
  __syncthreads();
  for (int j = thread; j < K * kSlab; j += ChannelSums::kThreads) {
    const int k = j / kSlab, channel = static_cast<int>(blockIdx.y) * kSlab + j % kSlab;
    if (channel >= sums.channels) continue;
    float sum = 0.0f;
    for (int w = 0; w < kWarps; ++w) sum += warp_sums[w][k][j % kSlab];
    partial[(static_cast<int64_t>(blockIdx.x) * K + k) * sums.channels + channel] = sum;
  }
}

// Kernels that add up chunks: a block takes kWarpSize channels with kSplit threads each.
inline constexpr int kSplit = 8;
inline const dim3 kColumnBlock(kWarpSize, kSplit);

// Sums every element of `sums` over the threads of one column of a kColumnBlock; valid where threadIdx.y == 0. All
// threads must call it.
template <int K>
__device__ static void sum_splits(double (&sums)[K]) {
  __shared__ double part[K][kSplit][kWarpSize];
#pragma unroll
  for (int k = 0; k < K; ++k) part[k][threadIdx.y][threadIdx.x] = sums[k];
  __syncthreads();
  if (threadIdx.y != 0) return;
#pragma unroll
  for (int k = 0; k < K; ++k) {
    for (int split = 1; split < kSplit; ++split) sums[k] += part[k][split][threadIdx.x];
  }
}

// out[i] = sum over chunks of partial[chunk * stride + i], in double: 4 B read per element of partial.
__global__ static void sum_chunks_kernel(int chunks, int columns, int64_t stride, const float* partial, float* out) {
  const int column = static_cast<int>(blockIdx.x * kWarpSize + threadIdx.x);
  double sum[1] = {};
  if (column < columns) {
    for (int chunk = static_cast<int>(threadIdx.y); chunk < chunks; chunk += kSplit) {
      sum[0] += static_cast<double>(partial[chunk * stride + column]);
    }
  }
  sum_splits(sum);
  if (threadIdx.y == 0 && column < columns) out[column] = static_cast<float>(sum[0]);
}

// Chunks lie `stride` floats apart: K * channels for one of several sums.
inline void sum_chunks(Stream stream, int chunks, int columns, int64_t stride, const float* partial, float* out) {
  launch(sum_chunks_kernel, blocks_for(columns, kWarpSize), kColumnBlock, 0, stream, chunks, columns, stride, partial,
         out);
}
inline void sum_chunks(Stream stream, int chunks, int columns, const float* partial, float* out) {
  sum_chunks(stream, chunks, columns, columns, partial, out);
}

}  // namespace depthstill
