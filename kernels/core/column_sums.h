// Sums over rows on the CPU, per column, the same for any number of threads: where rows are cut depends on the shape
// alone, and the pieces are added up in order, in double. ColumnSums keeps a sum in float for every chunk of a few
// rows; BlockSums one in double for each of at most 128 blocks of rows, which the kernel sums in float as far as it
// likes. The twin of channel_sums.cuh.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "kernels/core/parallel.h"
#include "kernels/core/stream.h"

namespace depthstill::cpu {

class ColumnSums {
 public:
  static constexpr int64_t kChunkRows = 32;

  // K sums of `channels` columns each. Also gives `floats` floats of scratch memory.
  ColumnSums(Stream stream, int64_t rows, int64_t channels, int K, int64_t chunk_rows = kChunkRows, int64_t floats = 0)
      : rows_(rows), channels_(channels), chunk_rows_(chunk_rows), stride_(K * channels) {
    chunks_ = (rows + chunk_rows - 1) / chunk_rows;
    const int64_t all = chunks_ * stride_ + floats;
    partial_ = static_cast<float*>(stream.scratch->get(static_cast<size_t>(all) * sizeof(float)));
  }
  float* floats() const { return partial_ + chunks_ * stride_; }

  // body(first, last, sums) for every chunk, to add the K * channels terms of its rows to `sums`.
  template <class Body>
  void add_chunks(const Body& body) const {
    parallel_for(chunks_, 1, [&](int64_t chunk) {
      float* sums = partial_ + chunk * stride_;
      std::fill_n(sums, stride_, 0.0f);
      body(chunk * chunk_rows_, std::min(rows_, (chunk + 1) * chunk_rows_), sums);
    });
  }

  // body(row, sums) for every row; a chunk's rows come in order.
  template <class Body>
  void add_rows(const Body& body) const {
    add_chunks([&](int64_t first, int64_t last, float* sums) {
      for (int64_t row = first; row < last; ++row) body(row, sums);
    });
  }

  // Assigns the k-th sum.
  void finish(int k, float* out) const {
    const float* partial = partial_ + k * channels_;
    constexpr int64_t kStrip = 64;  // columns, which the cache lines of a chunk's row serve at once
    parallel_for((channels_ + kStrip - 1) / kStrip, 4, [&](int64_t strip) {
      double sums[kStrip] = {};
      const int64_t first = strip * kStrip, count = std::min(kStrip, channels_ - first);
      for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
        const float* from = partial + chunk * stride_ + first;
        for (int64_t c = 0; c < count; ++c) sums[c] += static_cast<double>(from[c]);
      }
      for (int64_t c = 0; c < count; ++c) out[first + c] = static_cast<float>(sums[c]);
    });
  }

 private:
  int64_t rows_, channels_, chunk_rows_, chunks_, stride_;
  float* partial_;
};

class BlockSums {
 public:
  static constexpr int64_t kMaxBlocks = 128;

  // Rows for a block where rows are short: `grain` are worth a thread. Larger blocks where there are enough of them, as
  // the sums of a block cost memory traffic.
  static int64_t rows_of_block(int64_t rows, int64_t grain) {
    return std::max(grain, std::clamp<int64_t>(rows / 8, 32, 128));
  }

  // `size` sums over blocks of at least `block_rows` rows, whose number is a power of 2: even shares for most numbers
  // of threads. Also gives scratch memory: `floats` for each thread and `more` for all.
  BlockSums(Stream stream, int64_t rows, int64_t block_rows, int64_t size, int64_t floats, int64_t more = 0)
      : rows_(rows),
        blocks_(static_cast<int64_t>(
            std::bit_floor(static_cast<uint64_t>(std::clamp<int64_t>(rows / block_rows, 1, kMaxBlocks))))),
        size_((size + 15) / 16 * 16),  // whole cache lines: no false sharing
        thread_floats_((floats + 15) / 16 * 16) {
    const int64_t doubles = blocks_ * size_, all_floats = num_threads() * thread_floats_;
    totals_ = static_cast<double*>(stream.scratch->get(static_cast<size_t>(doubles) * sizeof(double) +
                                                       static_cast<size_t>(all_floats + more) * sizeof(float)));
    floats_ = reinterpret_cast<float*>(totals_ + doubles);
    more_ = floats_ + all_floats;
  }
  float* more() const { return more_; }

  // body(first, last, totals, floats) for every block, to add the terms of its rows to `totals`, which are 0 at first.
  template <class Body>
  void add_blocks(const Body& body) const {
    parallel_ranges(blocks_, 1, [&](int64_t begin, int64_t end, int part) {
      for (int64_t block = begin; block < end; ++block) {
        double* totals = totals_ + block * size_;
        std::fill_n(totals, size_, 0.0);
        body(rows_ * block / blocks_, rows_ * (block + 1) / blocks_, totals, floats_ + part * thread_floats_);
      }
    });
  }

  // The sums of all blocks.
  double* finish() const {
    parallel_for(size_ / 16, 32, [&](int64_t line) {
      double* to = totals_ + line * 16;
      for (int64_t block = 1; block < blocks_; ++block) {
        for (int64_t i = 0; i < 16; ++i) to[i] += to[block * size_ + i];
      }
    });
    return totals_;
  }

 private:
  int64_t rows_, blocks_, size_, thread_floats_;
  double* totals_;
  float *floats_, *more_;
};

}  // namespace depthstill::cpu
