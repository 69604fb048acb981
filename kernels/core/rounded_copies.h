// bf16 copies of parameters in the memory of the CUDA device. Whoever changes the parameters keeps the copies as they
// are (engine/optim.h), and kernels that multiply in bf16 need not round them again (kernels/cast.h). One thread at a
// time, as for ops.
#pragma once

#include <cstdint>

#include "kernels/core/bf16.h"

namespace depthstill::cuda {

// From now on `copy` (n) holds `parameters` (n), rounded; null: nothing does any more. Ranges do not overlap.
void set_rounded_copy(const float* parameters, int64_t n, bf16* copy);

// Where the copy of these parameters begins, which may be some of a longer range; null if there is none.
bf16* rounded_copy(const float* parameters, int64_t n);

}  // namespace depthstill::cuda
