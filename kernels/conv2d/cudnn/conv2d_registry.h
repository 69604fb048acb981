// The registry says what this process has computed by convolution on CUDA so far, and how.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "kernels/conv2d/cudnn/conv2d_ways.h"

namespace depthstill::cudnn {

struct ChosenConvolution {
  Problem problem;
  LibraryOptions options;
  // "plan" or "matmul" (cuBLASLt), then ", fused" with all besides the product, ", sums" with the moments.
  std::string way;
  size_t workspace_bytes = 0;
};

// The result is in an order of shapes.
std::vector<ChosenConvolution> chosen_convolutions();

}  // namespace depthstill::cudnn
