// Numbers below 2^-126 in size take a CPU some hundred cycles each.
#pragma once

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace depthstill {

// While it lives, what this thread computes below 2^-126 in size is 0 (on x86). Operands stay what they are.
class FlushDenormals {
 public:
#if defined(__SSE__)
  FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | _MM_FLUSH_ZERO_ON); }
  ~FlushDenormals() { _mm_setcsr(before_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned before_;
#else
  FlushDenormals() {}
#endif
};

}  // namespace depthstill
