// The simulation of cuDNN and cuBLASLt: this folder defines the functions of cudnn.h and cublasLt.h that we call, for
// builds without CUDA, so that the code which calls them computes on the emulated device. It is written from NVIDIA's
// headers and documentation, and as strict as those: it refuses what they forbid, overwrites a workspace and what is
// going to be assigned with NaN, and offers several algorithms, among them ones that a caller must not take under some
// options. Work is given to the emulated device's stream and done when that gets to it.
#pragma once

namespace depthstill::simt {

// The next `count` executions of a plan or product fail, as one whose kernel does not fit the device. Tests use it.
void fail_next_executions(int count);
// Returns whether this execution is one of those.
bool execution_fails();

}  // namespace depthstill::simt
