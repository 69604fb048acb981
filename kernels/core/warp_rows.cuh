// The frame of kernels that give each row of an array to one warp: blocks of kRowThreads threads, a warp's lanes take
// the row's packs in turns. What the row is read for again comes from L1.
#pragma once

#include "kernels/core/pack.cuh"
#include "kernels/core/warp.cuh"

namespace depthstill {

inline constexpr int kRowThreads = 256;
inline constexpr int kRowsPerBlock = kRowThreads / kWarpSize;

// The warp's row and the lane's first channel; its further packs of kPack channels lie kStep channels apart. A row past
// the last is one of a whole warp, which may return.
template <int kPack>
struct WarpRow {
  static constexpr int kStep = kWarpSize * kPack;
  int64_t row;
  int first;

  __device__ WarpRow()
      : row(blockIdx.x * static_cast<int64_t>(kRowsPerBlock) + threadIdx.x / kWarpSize),
        first(static_cast<int>(threadIdx.x % kWarpSize) * kPack) {}
};

inline unsigned row_blocks(int64_t rows) { return blocks_for(rows, kRowsPerBlock); }

}  // namespace depthstill
