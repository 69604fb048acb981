#include "kernels/concat.h"

#include <algorithm>

#include "kernels/parallel.h"

namespace depthstill::cpu {
namespace {
constexpr int64_t kGrainElements = 16384;  // below this a second thread costs more than it gains
int64_t grain_rows(int64_t channels) { return kGrainElements / std::max<int64_t>(channels, 1) + 1; }
}  // namespace

template <class T>
void concat(Stream, int64_t rows, int64_t a_channels, int64_t b_channels, const T* a, const T* b, T* y) {
  const int64_t channels = a_channels + b_channels;
  parallel_for(rows, grain_rows(channels), [&](int64_t r) {
    std::copy_n(a + r * a_channels, a_channels, y + r * channels);
    std::copy_n(b + r * b_channels, b_channels, y + r * channels + a_channels);
  });
}

template <class T>
void concat_grad(Stream, int64_t rows, int64_t a_channels, int64_t b_channels, const T* dy, T* da, T* db) {
  const int64_t channels = a_channels + b_channels;
  parallel_for(rows, grain_rows(channels), [&](int64_t r) {
    if (da) std::copy_n(dy + r * channels, a_channels, da + r * a_channels);
    if (db) std::copy_n(dy + r * channels + a_channels, b_channels, db + r * b_channels);
  });
}

template void concat(Stream, int64_t, int64_t, int64_t, const float*, const float*, float*);
template void concat(Stream, int64_t, int64_t, int64_t, const bf16*, const bf16*, bf16*);
template void concat_grad(Stream, int64_t, int64_t, int64_t, const float*, float*, float*);
template void concat_grad(Stream, int64_t, int64_t, int64_t, const bf16*, bf16*, bf16*);

}  // namespace depthstill::cpu
