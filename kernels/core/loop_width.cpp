#include "kernels/core/loop_width.h"

#include "kernels/core/lanes.h"

namespace depthstill::cpu {

const char* loop_width(Stream) {
#if defined(__AVX512BF16__)
  return "16 lanes, AVX-512 BF16";
#else
  return kLanes == 16 ? "16 lanes" : "8 lanes";
#endif
}

}  // namespace depthstill::cpu
