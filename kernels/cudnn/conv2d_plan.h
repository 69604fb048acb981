// The three cuDNN plans of a convolution. Tensors are NHWC, weights (O, R, S, C), all of one data type, accumulated in
// fp32.
#pragma once

#include "kernels/conv2d.h"
#include "kernels/cudnn/graph.h"

namespace depthstill::cudnn {

enum class Pass { kForward, kDataGradient, kWeightGradient };
constexpr int64_t kX = 1, kWeight = 2, kY = 3;  // tensor ids; a gradient has the id of its tensor

const char* name_of(Pass pass);
Plan make_conv2d_plan(const Target& target, const Conv2dShape& shape, cudnnDataType_t type, Pass pass,
                      const PlanOptions& options = {});

}  // namespace depthstill::cudnn
