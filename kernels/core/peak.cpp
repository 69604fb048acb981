#include "kernels/core/peak.h"

#include <cstring>

#include "kernels/conv2d/conv2d_tiles.h"
#include "kernels/core/amx.h"
#include "kernels/core/lanes.h"
#include "kernels/core/parallel.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace depthstill::cpu {
namespace {

// An fp32 product in bf16 parts (conv2d_amx_float.cpp).
constexpr int kSplitProducts = 6;

// Independent sums: enough to cover the latency of an FMA on two ports, each a variable of its own, because an array
// would live in memory.
constexpr int kSums = 8;

void burn_lanes(int64_t iterations, float* result) {
  const Lanes factor = Lanes{} + 0.5f, term = Lanes{} + *result;
  Lanes a = term, b = a + 1.0f, c = a + 2.0f, d = a + 3.0f;  // different, or the compiler would keep one of them
  Lanes e = a + 4.0f, f = a + 5.0f, g = a + 6.0f, h = a + 7.0f;
  for (int64_t i = 0; i < iterations; ++i) {
    a = a * factor + term;
    b = b * factor + term;
    c = c * factor + term;
    d = d * factor + term;
    e = e * factor + term;
    f = f * factor + term;
    g = g * factor + term;
    h = h * factor + term;
  }
  *result = (a + b + c + d + e + f + g + h)[0];
}

#if defined(__x86_64__)
__attribute__((target("amx-tile,amx-bf16"))) void burn_tiles(int64_t iterations) {
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (int64_t i = 0; i < iterations; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}
#endif

}  // namespace

template <class T>
double burn_multiply_adds(int64_t iterations) {
  const int threads = num_threads();
#if defined(__x86_64__)
  if (const TileKernels* amx = amx_kernels<T>()) {
    parallel_for(threads, 1, [&](int64_t) {
      amx->begin();
      burn_tiles(iterations);
      amx->end();
    });
    const int products = sizeof(T) == sizeof(float) ? kSplitProducts : 1;
    return static_cast<double>(iterations) * threads * 4 * 2 * 16 * 16 * 32 / products;
  }
#endif
  parallel_for(threads, 1, [&](int64_t) {
    volatile float start = 1.0f;  // keeps the loop: its input is unknown and its result is used
    float value = start;
    burn_lanes(iterations, &value);
    start = value;
  });
  return static_cast<double>(iterations) * threads * kSums * 2 * kLanes;
}
template double burn_multiply_adds<float>(int64_t);
template double burn_multiply_adds<bf16>(int64_t);

void copy_bytes(void* to, const void* from, int64_t bytes) {
  constexpr int64_t kGrain = int64_t{1} << 20;
  parallel_ranges(bytes, kGrain, [&](int64_t begin, int64_t end, int) {
    std::memcpy(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin,
                static_cast<size_t>(end - begin));
  });
}

}  // namespace depthstill::cpu
