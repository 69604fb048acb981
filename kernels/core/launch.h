// The one place where a kernel meets a grid. A .cu file includes this header and nothing else of CUDA: nvcc compiles it
// against the CUDA runtime, a host compiler compiles it, as C++, against the SIMT emulator (kernels/simt).
//
//   launch(kernel, grid, block, shared_bytes, stream, args...)   instead of kernel<<<...>>>(args...)
//   DYNAMIC_SHARED(float, tile);                                 float* tile: the block's dynamic shared memory
//   for (const int64_t i : grid_stride(n)) ...                   every i in [0, n) once, over the whole grid
//   GRID_CONSTANT(Table) table                                   a large parameter of a kernel; threads make no copy
//
// Kernels and device helpers with __shared__ arrays belong in an anonymous namespace (or are static): ASan guards only
// such arrays, and the emulator refuses others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <type_traits>

#include "kernels/core/dry_run.h"
#include "kernels/core/error.h"
#include "kernels/core/stream.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#else
#include "kernels/simt/queue.h"
#include "kernels/simt/simt.h"
#endif

namespace depthstill {

// A stream and the line that launches on it; converts from Stream at the call.
struct LaunchStream {
  Stream stream;
  const char* file;
  int line;
  LaunchStream(Stream s, const char* at_file = __builtin_FILE(), int at_line = __builtin_LINE())
      : stream(s), file(at_file), line(at_line) {}
};

namespace detail {
// In a dry run, this records the launch and returns true.
template <class... Args>
bool launched_dry(dim3 grid, dim3 block, size_t shared_bytes, const LaunchStream& at, const Args&... args) {
  if (!cuda::dry_running()) return false;
  (cuda::check_argument(at.file, args), ...);
  cuda::record_launch(at.file, at.line, {grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared_bytes);
  return true;
}
}  // namespace detail

#if defined(__CUDACC__)

#define GRID_CONSTANT(T) const __grid_constant__ T

#define DYNAMIC_SHARED(T, name)                                 \
  extern __shared__ __align__(16) unsigned char name##_bytes[]; \
  T* const name = reinterpret_cast<T*>(name##_bytes)

namespace detail {
inline void check_launch(cudaError_t status, const LaunchStream& at, const char* what) {
  check(status == cudaSuccess, at.file, ":", at.line, ": ", what, ": ", cudaGetErrorString(status));
}
// Returns whether this is more dynamic shared memory than any launch of `kernel` has asked for: a smaller one must not
// lower what the kernel may have (runtime.cu).
bool raises_shared_bytes(const void* kernel, size_t bytes);

// DEPTHSTILL_SYNC=1 waits for every kernel, so that a fault is reported by the line that launched it.
inline bool sync_every_launch() {
  static const bool sync = [] {
    const char* value = std::getenv("DEPTHSTILL_SYNC");
    return value != nullptr && value[0] == '1';
  }();
  return sync;
}
}  // namespace detail

// Runs kernel(args...) on grid x block threads. An empty grid is an empty loop. Throws Error when CUDA refuses.
template <class... Params>
void launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, LaunchStream at,
            std::type_identity_t<Params>... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (detail::launched_dry(grid, block, shared_bytes, at, args...)) return;
  // CUDA wants to be asked for more than 48 KiB per block, of which static arrays may already hold a part.
  const void* function = reinterpret_cast<const void*>(kernel);
  if (shared_bytes > (16u << 10) && detail::raises_shared_bytes(function, shared_bytes)) {
    detail::check_launch(
        cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)), at,
        "dynamic shared memory");
  }
  const auto stream = static_cast<cudaStream_t>(at.stream.handle);
  const cudaLaunchConfig_t config{grid, block, shared_bytes, stream, nullptr, 0};
  detail::check_launch(cudaLaunchKernelEx(&config, kernel, args...), at, "launch");
  if (detail::sync_every_launch()) detail::check_launch(cudaStreamSynchronize(stream), at, "kernel");
}

#else

#define GRID_CONSTANT(T) const T&

#define DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::depthstill::simt::dynamic_shared())

template <class... Params>
void launch(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes, LaunchStream at,
            std::type_identity_t<Params>... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (detail::launched_dry(grid, block, shared_bytes, at, args...)) return;
  simt::submit(at.stream.handle, [=, where = simt::Where{at.file, at.line}] {
    const auto call = [&] { kernel(args...); };
    using Call = decltype(call);
    simt::run_grid(
        grid, block, shared_bytes, where, [](const void* state) { (*static_cast<Call*>(state))(); }, &call);
  });
}

#endif

// Blocks of `threads` threads that give each of n items a thread of its own.
inline unsigned blocks_for(int64_t n, int threads) {
  const int64_t blocks = n / threads + (n % threads != 0);
  check(n >= 0 && blocks <= 0x7fffffff, "launch: ", n, " items do not fit a grid of ", threads, "-thread blocks");
  return static_cast<unsigned>(blocks);
}

// Blocks of grids that loop over a map: enough for any GPU.
inline constexpr int kLoopBlocks = 8192;

// The same as above, but at most max_blocks: for kernels whose grid loops over the items. The emulator allows fewer, so
// that small tests run the loop's second round, and barriers that only that round needs are needed.
inline unsigned blocks_for(int64_t n, int threads, int max_blocks) {
#if !defined(__CUDACC__)
  if (!cuda::dry_running()) max_blocks = min(max_blocks, simt::kMaxLoopingBlocks);
#endif
  const int64_t blocks = n / threads + (n % threads != 0);
  return static_cast<unsigned>(blocks < max_blocks ? blocks : max_blocks);
}

// A block of `threads` threads for maps whose channels lie together: blockDim.x along a pixel's packs of channels, a
// power of two that covers them, at most `most`; blockDim.y along the row.
inline dim3 block_along_channels(int64_t packs, unsigned threads, unsigned most) {
  unsigned lanes = 1;
  while (lanes < packs && lanes < most) lanes *= 2;
  return dim3(lanes, threads / lanes);
}

// Range for `for (const int64_t i : grid_stride(n))` in a kernel with 1-d blocks and a 1-d grid.
class GridStride {
 public:
  struct Iterator {
    int64_t i, step;
    __device__ int64_t operator*() const { return i; }
    __device__ Iterator& operator++() {
      i += step;
      return *this;
    }
    __device__ bool operator!=(const Iterator& end) const { return i < end.i; }
  };

  __device__ explicit GridStride(int64_t n) : n_(n) {}
  __device__ Iterator begin() const {
    return {static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, static_cast<int64_t>(gridDim.x) * blockDim.x};
  }
  __device__ Iterator end() const { return {n_, 0}; }

 private:
  int64_t n_;
};

__device__ inline GridStride grid_stride(int64_t n) { return GridStride(n); }

}  // namespace depthstill
