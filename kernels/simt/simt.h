// SIMT emulator: CUDA kernels compiled as C++, one block at a time, to be accused rather than to be fast.
//
// Every CUDA thread is a fiber; barriers and warp collectives are rendezvous at which the scheduler (simt.cpp)
// switches. Reported as depthstill::Error, with file and line: divergent or deadlocked barriers, masks that name exited
// or absent lanes, launches that CUDA would refuse. Shared memory starts each block as NaN. The three schedules make
// results depend on a missing barrier. The host's sanitizers do the rest: ASan sees accesses out of bounds, UBSan
// misaligned packs and index overflow, TSan races within a block (every CUDA thread is a TSan thread).
//
// Not modelled: races between blocks, PTX (but for the tensor cores' instructions of mma.h), textures, clusters, FMA
// contraction, flush to zero; the fast intrinsics (__expf ...) are as exact as libm. Nothing here needs the CUDA
// toolkit.
#pragma once

#if defined(__CUDACC__)
#error "simt.h stands in for the CUDA device runtime; nvcc must not include it"
#endif

#include <math.h>

#include <cstddef>
#include <cstdint>

#include "kernels/simt/vector_types.h"

// ---- qualifiers ---------------------------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
#define __constant__ static
// One block runs at a time, so block scope is static storage; the section lets the scheduler fill it between blocks.
#define __shared__ __attribute__((section("simt_shared"))) static

// ---- built-in variables -------------------------------------------------------------------------------------------

inline uint3 threadIdx;
inline uint3 blockIdx;
inline dim3 blockDim;
inline dim3 gridDim;
inline constexpr int warpSize = 32;

namespace depthstill::simt {

// A line of a kernel or launcher. (std::source_location does not parse in clang 14.)
struct Where {
  const char* file = "";
  int line = 0;
  static constexpr Where current(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

// Calls body(state) once per thread of the grid. Throws Error on a launch that CUDA would refuse, on a synchronisation
// error in the kernel, and when two host threads launch at once.
void run_grid(dim3 grid, dim3 block, size_t dynamic_shared_bytes, Where launch, void (*body)(const void*),
              const void* state);

// blocks_for(n, threads, max_blocks) allows so many at most.
inline constexpr int kMaxLoopingBlocks = 3;

void* dynamic_shared();
int lane();

struct Votes {
  int yes = 0;  // threads whose predicate was not 0
  int all = 0;  // threads that arrived
};
Votes block_barrier(int predicate, Where where);

// One rendezvous of the lanes in `mask`. Each lane offers `value` and names the lane whose value it receives.
enum class WarpOp : uint8_t { kSync, kShuffle, kBallot };
uint64_t warp_exchange(WarpOp op, uint32_t mask, uint64_t value, int source_lane, Where where);

}  // namespace depthstill::simt

#include "kernels/simt/intrinsics.h"
