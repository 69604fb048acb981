// Wrong usage of a command, as opposed to work that fails.
#pragma once

#include "kernels/core/error.h"

namespace depthstill {

// A contradiction between options, or between them and what is on the disk, that the parser cannot see: kExitUsage.
struct UsageError : Error {
  using Error::Error;
};
template <class... Parts>
void check_usage(bool ok, const Parts&... parts) {
  if (!ok) throw UsageError(concat_text(parts...));
}

}  // namespace depthstill
