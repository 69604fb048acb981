#include "kernels/core/peak.h"

#include <atomic>
#include <cstring>

#include "kernels/conv2d/conv2d_tiles.h"
#include "kernels/core/lanes.h"
#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

// Independent sums: enough to cover the latency of an FMA on two ports, each a variable of its own, because an array
// would live in memory.
constexpr int kSums = 8;

double burn_lanes(int64_t iterations) {
  volatile float start = 1.0f;  // keeps the loop: its input is unknown and its result is used
  const Lanes factor = Lanes{} + 0.5f, term = Lanes{} + start;
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
  start = (a + b + c + d + e + f + g + h)[0];
  return static_cast<double>(iterations) * kSums * 2 * kLanes;
}

}  // namespace

template <class T>
double burn_multiply_adds(int64_t iterations) {
  const int threads = num_threads();
  const TileKernels* tiles = tile_kernels<T>();
  std::atomic<double> operations = 0;
  parallel_for(threads, 1, [&](int64_t) { operations += tiles ? tiles->burn(iterations) : burn_lanes(iterations); });
  return operations;
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
