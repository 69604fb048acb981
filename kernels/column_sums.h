// Sums over rows on the CPU, per column, the same for any number of threads: rows are taken in chunks of fixed size,
// summed in float, and the chunks are added up in order, in double. The twin of channel_sums.cuh.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/parallel.h"
#include "kernels/stream.h"

namespace depthstill::cpu {

class ColumnSums {
 public:
  static constexpr int64_t kChunkRows = 32;

  // K sums of `channels` columns each.
  ColumnSums(Stream stream, int64_t rows, int64_t channels, int K)
      : rows_(rows), channels_(channels), chunks_((rows + kChunkRows - 1) / kChunkRows), stride_(K * channels) {
    partial_ = static_cast<float*>(stream.scratch->get(static_cast<size_t>(chunks_ * stride_) * sizeof(float)));
  }

  // body(row, sums) for every row, to add its K * channels terms to `sums`; a chunk's rows come in order.
  template <class Body>
  void add_rows(const Body& body) const {
    parallel_for(chunks_, 1, [&](int64_t chunk) {
      float* sums = partial_ + chunk * stride_;
      std::fill_n(sums, stride_, 0.0f);
      const int64_t end = std::min(rows_, (chunk + 1) * kChunkRows);
      for (int64_t row = chunk * kChunkRows; row < end; ++row) body(row, sums);
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
  int64_t rows_, channels_, chunks_, stride_;
  float* partial_;
};

}  // namespace depthstill::cpu
