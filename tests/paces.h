// The host must see the same, whenever the device does its work.
#pragma once

#include <gtest/gtest.h>

#include "kernels/core/runtime.h"

namespace depthstill::test {

// Calls `check` at every pace of the emulated device; on a GPU, which has its own, once.
template <class F>
void at_every_pace(F check) {
  struct Row {
    cuda::Pace pace;
    const char* name;
  };
  for (const Row& row : {Row{cuda::Pace::kAtOnce, "at once"}, Row{cuda::Pace::kWhenAwaited, "when awaited"},
                         Row{cuda::Pace::kOthersFirst, "other streams first"}}) {
    SCOPED_TRACE(row.name);
    cuda::set_pace(row.pace);
    check();
    cuda::set_pace(cuda::Pace::kAtOnce);
    if (!cuda::emulated() || ::testing::Test::HasFatalFailure()) break;
  }
}

}  // namespace depthstill::test
