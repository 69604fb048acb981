// Sums over the pixels of an image. The pixels are taken in blocks of a fixed size, each on one thread, and the blocks'
// sums are added in order: the result has the same bits for any number of threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/core/parallel.h"

namespace depthstill {

inline constexpr size_t kPixelBlock = size_t{1} << 16;

// body(begin, end) is the sum over the pixels [begin, end), a Sum with += .
template <class Sum, class Body>
Sum sum_pixel_blocks(size_t pixels, const Body& body) {
  const size_t blocks = (pixels + kPixelBlock - 1) / kPixelBlock;
  std::vector<Sum> sums(blocks);
  parallel_for(static_cast<int64_t>(blocks), 1, [&](int64_t block) {
    const size_t begin = static_cast<size_t>(block) * kPixelBlock;
    sums[static_cast<size_t>(block)] = body(begin, std::min(begin + kPixelBlock, pixels));
  });
  Sum all{};
  for (const Sum& sum : sums) all += sum;
  return all;
}

}  // namespace depthstill
