// The shape of a bilinear resize, checked, for the ops that resize.
#pragma once

#include "engine/ops.h"
#include "kernels/upsample_bilinear.h"

namespace depthstill {

// x holds the rows `in` of its map, the result the rows `out` of a map of out_width columns. Messages begin with `op`.
UpsampleShape upsample_shape(const char* op, const Tensor& x, RowWindow in, RowWindow out, int64_t out_width,
                             bool align_corners);

}  // namespace depthstill
