// Self-attention of (N, T, C) tokens with `heads` heads of d = C / heads channels (Vaswani et al., 2017):
//   s[n, h, i, j] = sum_c q[n, i, h, c] k[n, j, h, c] / sqrt(d)      p = softmax of s over j
//   y[n, i, h, c] = sum_j p[n, h, i, j] v[n, j, h, c]                lse[n, h, i] = log sum_j exp(s[n, h, i, j])
// qkv (N, T, 3C): of a token first all of q, then k, then v, each with head h in channels h * d .. h * d + d - 1.
// y, dy (N, T, C); lse (N, heads, T) fp32; dqkv (N, T, 3C), assigned. Scores, softmax and sums are fp32; where products
// take bf16 operands (AMX, vdpbf16ps; on CUDA with d = 64), p and ds are rounded to bf16 for them, as PyTorch's flash
// attention does. Gradient:
//   p = exp(s - lse)   delta[n, h, i] = sum_c dy y   dp[i, j] = sum_c dy[i, c] v[j, c]   ds = p (dp - delta)
//   dv[j] = sum_i p[i, j] dy[i]   dk[j] = sum_i ds[i, j] q[i] / sqrt(d)   dq[i] = sum_j ds[i, j] k[j] / sqrt(d)
// The T x T matrices never exist: both passes work on blocks of them (Dao et al., FlashAttention, 2022). Work per image
// and head, in multiply-adds of T * T * d: 2 forward; backward 5 (CPU: each block of s and dp is made once) or 7 (CUDA:
// once for dq and once for dk and dv). Bytes are negligible from T of about 100. CUDA: d <= kMaxCudaHeadChannels; bf16
// with d = 64, as in every DINOv2, runs on tensor cores, all else is bound by the fp32 FMA units.
#pragma once

#include <cstdint>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

inline constexpr int64_t kMaxCudaHeadChannels = 128;

struct AttentionShape {
  int64_t N, T, C, heads;

  constexpr int64_t d() const { return C / heads; }
};

namespace cpu {
template <class T>
void attention(Stream stream, const AttentionShape& shape, const T* qkv, T* y, float* lse);
template <class T>
void attention_grad(Stream stream, const AttentionShape& shape, const T* qkv, const T* y, const float* lse, const T* dy,
                    T* dqkv);
}  // namespace cpu
namespace cuda {
template <class T>
void attention(Stream stream, const AttentionShape& shape, const T* qkv, T* y, float* lse);
template <class T>
void attention_grad(Stream stream, const AttentionShape& shape, const T* qkv, const T* y, const float* lse, const T* dy,
                    T* dqkv);
}  // namespace cuda
}  // namespace depthstill
