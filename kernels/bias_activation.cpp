#include "kernels/bias_activation.h"

#include "kernels/core/parallel.h"

namespace depthstill::cpu {

template <class T>
void bias_activation(Stream, int64_t rows, int channels, Activation act, const float* bias, T* y) {
  visit(act, [&]<Activation kind>() {
    parallel_for(rows, 1 + 16384 / channels, [&](int64_t r) {
      T* row = y + r * channels;
#pragma omp simd
      for (int c = 0; c < channels; ++c) {
        row[c] = T(activate<kind>(static_cast<float>(row[c]) + (bias != nullptr ? bias[c] : 0.0f)));
      }
    });
  });
}

template void bias_activation<float>(Stream, int64_t, int, Activation, const float*, float*);
template void bias_activation<bf16>(Stream, int64_t, int, Activation, const float*, bf16*);

}  // namespace depthstill::cpu
