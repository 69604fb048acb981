// The 1x1 convolution of a DPM head together with the loss or depth that reads its logits (dpm.h). For each pixel i:
//   logits[i,b] = bias[b] + sum_c x[i,c] * weight[b,c]
// They are made a few pixels at a time and never stored; the gradient makes them again. With dlogits of dpm.h:
//   dx[i,c]      = sum_b dlogits[i,b] * weight[b,c]
//   dweight[b,c] = sum_i dlogits[i,b] * x[i,c]
//   dbias[b]     = sum_i dlogits[i,b]
//   x, dx (N, H, W, C)   weight, dweight (bins, C) float   bias, dbias (bins) float
// Products round as conv2d's: on the CPU logits and dlogits are T; in CUDA's bf16, logits stay fp32 and weight and
// dlogits are bf16. Instead of a map of logits, which the head writes and reads five times and the loss three times,
// memory sees
//   forward   x once, and 16 bytes per pixel of maps
//   gradient  CPU: x and dx once. CUDA: x twice (dx, then dweight), dx once. 20 bytes per pixel of maps for each
// for one more product of 2 * C * bins operations per pixel (CPU) or two (CUDA). Bound: arithmetic.
#pragma once

#include <cstddef>

#include "kernels/conv2d/conv2d.h"
#include "kernels/dpm/dpm.h"

namespace depthstill {

// The head's operands; problem.shape.channels is C, of x.
template <class T>
struct DpmHeadInput {
  const T* x = nullptr;
  const float *weight = nullptr, *bias = nullptr;
};

// dpm_head:      teacher null: no KL. `maps` as of dpm.
// dpm_head_grad: assigns those of `to` that are not null, as conv2d_grad does; `maps` as of dpm_grad. With to.below !=
//                none, x is that activation's output.
// dpm_head_supported: whether there is a kernel for these sizes.
// dpm_head_workspace: bytes at `workspace`, aligned as Scratch, for either.
namespace cpu {
template <class T>
bool dpm_head_supported(const DpmShape& shape, const DpmBins& bins);
template <class T>
size_t dpm_head_workspace(const DpmShape& shape, const DpmBins& bins);
template <class T>
void dpm_head(Stream stream, const DpmProblem& problem, const DpmHeadInput<T>& head, const float* teacher,
              const DpmMaps& maps, float* workspace);
template <class T>
void dpm_head_grad(Stream stream, const DpmProblem& problem, const DpmHeadInput<T>& head, const DpmGradientMaps& maps,
                   const Conv2dGradients<T>& to, float* workspace);
}  // namespace cpu
namespace cuda {
template <class T>
bool dpm_head_supported(const DpmShape& shape, const DpmBins& bins);
template <class T>
size_t dpm_head_workspace(const DpmShape& shape, const DpmBins& bins);
template <class T>
void dpm_head(Stream stream, const DpmProblem& problem, const DpmHeadInput<T>& head, const float* teacher,
              const DpmMaps& maps, float* workspace);
template <class T>
void dpm_head_grad(Stream stream, const DpmProblem& problem, const DpmHeadInput<T>& head, const DpmGradientMaps& maps,
                   const Conv2dGradients<T>& to, float* workspace);
}  // namespace cuda
}  // namespace depthstill
