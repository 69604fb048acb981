// Ops that are compiled several times for one program (cmake/DepthstillWidths.cmake).
#include <gtest/gtest.h>

#include "sample.h"

extern "C" int depthstill_width;

namespace depthstill {
namespace {

// Compiled for x86-64 alone, as this file is.
TEST(Widths, TheProcessorDecidesAndNothingOfAWiderCopyIsShared) {
  const int widest = depthstill_width;
  EXPECT_EQ(widest, !__builtin_cpu_supports("avx512vl") ? 0 : __builtin_cpu_supports("avx512bf16") ? 2 : 1);
  for (depthstill_width = 0; depthstill_width <= widest; ++depthstill_width) {
    int op = -1, inlined = -1;
    cpu::report_width({}, &op, &inlined);
    EXPECT_EQ(op, depthstill_width);
    EXPECT_EQ(inlined, depthstill_width);
    float ops = -1.0f, inlines = -1.0f;
    cpu::report_width({}, &ops, &inlines);
    EXPECT_EQ(ops, static_cast<float>(depthstill_width));
    EXPECT_EQ(inlines, static_cast<float>(depthstill_width));
    EXPECT_EQ(compiled_for(), 0);
  }
  depthstill_width = widest;
}

}  // namespace
}  // namespace depthstill
