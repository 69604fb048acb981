// Leaves and statistics of all contexts (contexts.h) of a pair of maps, for the losses that normalise them. Exact lower
// medians by counting (selection.h): no sort, no float atomics, no look from the host; a constant map takes what any
// other takes. Not differentiable: the losses carry the gradient through t and s.
//   x, y (N, H, W)   leaves (N, H, W): the pixel's leaf, kNoContext or kNotCounted   stats (2, N, contexts): of x, of y
// Sums of |v - t| are in double (on CPUs those of 128 pixels in float), in an order that the shape alone decides.
// Bytes per pixel: bounds 8, leaves 5, three counts of 10, deviations 10: 53; kQuantile counts y three times more (15).
// Bound: memory for large batches; at 4 x 560 x 560 all lies in a GPU's L2, and 8 launches are the bound.
#pragma once

#include "kernels/context/contexts.h"

namespace depthstill {

namespace cpu {
void context_statistics(Stream stream, const MapShape& shape, const ContextRule& rule, const float* x, const float* y,
                        uint8_t* leaves, ContextStats* stats);
}  // namespace cpu
namespace cuda {
void context_statistics(Stream stream, const MapShape& shape, const ContextRule& rule, const float* x, const float* y,
                        uint8_t* leaves, ContextStats* stats);
}  // namespace cuda
}  // namespace depthstill
