#include "kernels/depth_target.h"

#include "kernels/core/parallel.h"

namespace depthstill::cpu {

void depth_target(Stream stream, const DepthTargetShape& shape, DepthRange range, TargetMode mode, const float* target,
                  float* y, TargetTally* tally) {
  const int64_t rows = shape.N * shape.rows;
  auto* counts = static_cast<int64_t*>(stream.scratch->get(static_cast<size_t>(rows) * sizeof(int64_t)));
  parallel_for(rows, 16, [&](int64_t r) {
    const int64_t n = r / shape.rows, row = r % shape.rows;
    const float* from = target + (n * shape.H + shape.H - shape.rows + row) * shape.W;
    float* to = y + r * shape.W;
    int64_t count = 0;
    for (int64_t w = 0; w < shape.W; ++w) {
      const float depth = from[w];
      count += valid_depth(depth, range);
      to[w] = depth_target_of(depth, range, mode);
    }
    counts[r] = row < shape.first_row ? 0 : count;
  });
  if (tally == nullptr) return;
  int64_t pixels = 0;
  for (int64_t r = 0; r < rows; ++r) pixels += counts[r];
  add_to_tally(static_cast<double>(pixels), tally);
}

}  // namespace depthstill::cpu
