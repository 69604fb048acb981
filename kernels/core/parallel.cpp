#include "kernels/core/parallel.h"

#include <algorithm>

#if defined(DEPTHSTILL_STD_THREADS)
#include <thread>
#include <vector>
#endif
#include <omp.h>

namespace depthstill {

int num_threads() { return omp_get_max_threads(); }
void set_num_threads(int threads) { omp_set_num_threads(threads); }

namespace detail {

int parts_for(int64_t n, int64_t grain) {
  const int64_t wanted = (n + grain - 1) / std::max<int64_t>(grain, 1);
  return static_cast<int>(std::clamp<int64_t>(wanted, 1, num_threads()));
}

void run_parts(int64_t n, int parts, RangeBody body, const void* state) {
  const auto run = [&](int part) { body(state, n * part / parts, n * (part + 1) / parts, part); };
#if defined(DEPTHSTILL_STD_THREADS)
  // ThreadSanitizer cannot see libgomp's synchronisation, so its builds use plain threads.
  std::vector<std::jthread> threads;
  for (int part = 1; part < parts; ++part) threads.emplace_back(run, part);
  run(0);
#else
#pragma omp parallel for schedule(static, 1) num_threads(parts)
  for (int part = 0; part < parts; ++part) run(part);
#endif
}

}  // namespace detail
}  // namespace depthstill
