// Computes a plan on the host.
#pragma once

#include <map>

#include "kernels/simt/libraries/cudnn_engines.h"

namespace depthstill::simt {

// `pointers` has every tensor of the graph that is not virtual. Overwrites the workspace and all that is going to be
// assigned with NaN before it reads anything.
void interpret(const Engine& engine, const std::map<int64_t, void*>& pointers, void* workspace);

}  // namespace depthstill::simt
