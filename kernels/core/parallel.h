// Loops over all CPU threads. OpenMP is used because oneDNN uses it: two thread pools would fight over the cores.
#pragma once

#include <cstdint>

namespace depthstill {

int num_threads();
void set_num_threads(int threads);  // >= 1; also what oneDNN uses

namespace detail {
using RangeBody = void (*)(const void* state, int64_t begin, int64_t end, int part);
void run_parts(int64_t n, int parts, RangeBody body, const void* state);
int parts_for(int64_t n, int64_t grain);
}  // namespace detail

// Splits [0, n) into at most num_threads() contiguous parts of at least `grain` items and calls
// body(begin, end, part) for each, part = 0, 1, ... The split depends only on n, grain and num_threads().
template <class Body>
void parallel_ranges(int64_t n, int64_t grain, const Body& body) {
  const int parts = detail::parts_for(n, grain);
  if (parts <= 1) {
    if (n > 0) body(int64_t{0}, n, 0);
    return;
  }
  detail::run_parts(
      n, parts,
      [](const void* state, int64_t begin, int64_t end, int part) {
        (*static_cast<const Body*>(state))(begin, end, part);
      },
      &body);
}

// body(i) for i in [0, n).
template <class Body>
void parallel_for(int64_t n, int64_t grain, const Body& body) {
  parallel_ranges(n, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

}  // namespace depthstill
