// An op that says what its copy was compiled for, and an inline function that every object of the program has: the
// linker takes one of them for all.
#pragma once

#include "kernels/core/stream.h"

#if defined(__AVX512BF16__)
#define DS_COMPILED_FOR 2
#elif defined(__AVX512F__)
#define DS_COMPILED_FOR 1
#else
#define DS_COMPILED_FOR 0
#endif

namespace depthstill {

[[gnu::noinline]] inline int compiled_for() { return DS_COMPILED_FOR; }

namespace cpu {
template <class T>
void report_width(Stream, T* op, T* inlined);
void report_width(Stream, int* op, int* inlined);
}  // namespace cpu

}  // namespace depthstill
