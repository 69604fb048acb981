// The vectors that the loops over elements, norms and depthwise convolutions use. They have the width of the build,
// except that a build for a lesser processor takes wider ones where the processor has them
// (cmake/DepthstillWidths.cmake).
#pragma once

#include "kernels/core/stream.h"

namespace depthstill::cpu {

// "16 lanes, AVX-512 BF16", "16 lanes" or "8 lanes" of fp32.
const char* loop_width(Stream);

}  // namespace depthstill::cpu
