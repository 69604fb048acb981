// y[n,0,c] = cls[c] + pos[0,c],   y[n,1+t,c] = patches[n,t,c] + pos[1+t,c]: the tokens that a vision transformer starts
// with. patches (N, tokens, C), y (N, 1 + tokens, C); cls (C) and pos (1 + tokens, C) float.
// Gradients: dpatches[n,t,c] = dy[n,1+t,c]   dpos[t,c] = sum over n of dy[n,t,c]   dcls[c] = dpos[0,c]
// Moves 2 * sizeof(T) bytes per element. Bound: memory.
#pragma once

#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

struct TokenShape {
  int64_t N = 0, tokens = 0, C = 0;
};

// All outputs are assigned; dpatches, and dcls together with dpos, may be null.
namespace cpu {
template <class T>
void embed_tokens(Stream stream, const TokenShape& shape, const T* patches, const float* cls, const float* pos, T* y);
template <class T>
void embed_tokens_grad(Stream stream, const TokenShape& shape, const T* dy, T* dpatches, float* dcls, float* dpos);
}  // namespace cpu
namespace cuda {
template <class T>
void embed_tokens(Stream stream, const TokenShape& shape, const T* patches, const float* cls, const float* pos, T* y);
template <class T>
void embed_tokens_grad(Stream stream, const TokenShape& shape, const T* dy, T* dpatches, float* dcls, float* dpos);
}  // namespace cuda
}  // namespace depthstill
