#include "kernels/embed_tokens.h"

#include <algorithm>

#include "kernels/core/channels.h"
#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {
constexpr int64_t kGrainElements = 1 << 14;  // worth a thread
}

template <class T>
void embed_tokens(Stream, const TokenShape& s, const T* patches, const float* cls, const float* pos, T* y) {
  const int64_t rows = 1 + s.tokens;
  parallel_for(s.N * rows, 1 + kGrainElements / s.C, [&](int64_t row) {
    const int64_t n = row / rows, t = row % rows;
    for_channels(s.C, [&]<class V>(int64_t c) {
      const V token = t == 0 ? load<V>(cls + c) : load<V>(patches + (n * s.tokens + t - 1) * s.C + c);
      store(y + row * s.C + c, token + load<V>(pos + t * s.C + c));
    });
  });
}

template <class T>
void embed_tokens_grad(Stream, const TokenShape& s, const T* dy, T* dpatches, float* dcls, float* dpos) {
  const int64_t rows = 1 + s.tokens;
  parallel_for(rows, 1 + kGrainElements / (s.N * s.C + 1), [&](int64_t t) {
    for (int64_t n = 0; dpatches != nullptr && t > 0 && n < s.N; ++n) {
      std::copy_n(dy + (n * rows + t) * s.C, s.C, dpatches + (n * s.tokens + t - 1) * s.C);
    }
    if (dpos == nullptr) return;
    for_channels(s.C, [&]<class V>(int64_t c) {
      V sum = {};
      for (int64_t n = 0; n < s.N; ++n) sum += load<V>(dy + (n * rows + t) * s.C + c);
      store(dpos + t * s.C + c, sum);
      if (t == 0) store(dcls + c, sum);
    });
  });
}

template void embed_tokens(Stream, const TokenShape&, const float*, const float*, const float*, float*);
template void embed_tokens(Stream, const TokenShape&, const bf16*, const float*, const float*, bf16*);
template void embed_tokens_grad(Stream, const TokenShape&, const float*, float*, float*, float*);
template void embed_tokens_grad(Stream, const TokenShape&, const bf16*, bf16*, float*, float*);

}  // namespace depthstill::cpu
