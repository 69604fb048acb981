// Inside of DpmMap (engine/ops_loss.h), for the ops and their tests.
#pragma once

#include "engine/ops_loss.h"

namespace depthstill {

// The logits of a head over x, stored: (N, H, W, channels >= bins). On a GPU they have channels past the bins, which
// the loss takes for padding (kernels/dpm/dpm.h): cuDNN and cuBLASLt are at their best with multiples of 8 channels,
// and for 257 cuDNN would copy the whole map first, 4 GB of it at batch 32. The parameters stay as they are; the zeros
// that they are padded with make those channels 0.
Tensor stored_logits(const Tensor& x, const DpmHead& head);

}  // namespace depthstill
