// The simulated cuDNN says no by a Refusal.
#pragma once

#include <cudnn.h>

#include <string>

#include "kernels/core/error.h"

namespace depthstill::simt {

// It is thrown inside, and returned to the caller as a status and as the last error's text.
struct Refusal {
  cudnnStatus_t status;
  std::string message;
};

template <class... Parts>
void require(bool ok, cudnnStatus_t otherwise, const Parts&... parts) {
  if (!ok) throw Refusal{otherwise, concat_text(parts...)};
}

}  // namespace depthstill::simt
