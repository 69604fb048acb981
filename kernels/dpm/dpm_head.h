// The 1x1 convolution of a DPM head together with the loss or depth that reads its logits (dpm.h):
//   logits[i,b] = bias[b] + sum_c x[i,c] * weight[b,c]   for each pixel i, made a few pixels at a time and never
//   stored;
// the gradient makes them again. With dlogits of dpm.h:
//   dx[i,c] = sum_b dlogits[i,b] * weight[b,c]   dweight[b,c] = sum_i dlogits[i,b] * x[i,c]   dbias[b] = sum_i
//   dlogits[i,b] x, dx (N, H, W, C)   weight, dweight (bins, C) float   bias, dbias (bins) float
// Products round as conv2d's: on the CPU logits and dlogits are T; in CUDA's bf16, logits stay fp32 and weight and
// dlogits are bf16. Instead of a map of logits, which the head writes and reads five times and the loss three times,
// memory sees
//   forward   x once, and 16 bytes per pixel of maps
//   gradient  CPU: x and dx once. CUDA: x twice (dx, then dweight), dx once. 20 bytes per pixel of maps for each
// for one more product of 2 * C * bins operations per pixel (CPU) or two (CUDA). Bound: arithmetic.
#pragma once

#include <cstddef>

#include "kernels/activation.h"
#include "kernels/dpm/dpm.h"

namespace depthstill {

struct DpmHeadShape {
  int64_t N = 0, H = 0, W = 0;
  int64_t C = 0;  // of x
};

// dpm_head:      teacher null: no KL, `table` unused. depth, lse, offset, result as of dpm.
// dpm_head_grad: assigns those of dx, dweight, dbias and dbias_below that are not null; dkl and ddepth as of dpm_grad.
//                With below != none, x is that activation's output and dx goes on through it (conv2d.h); only then and
//                with dx may dbias_below (C) be given.
// dpm_head_supported: whether there is a kernel for these sizes.
// dpm_head_workspace: bytes at `workspace`, aligned as Scratch, for either.
namespace cpu {
template <class T>
bool dpm_head_supported(const DpmHeadShape& shape, const DpmBins& bins);
template <class T>
size_t dpm_head_workspace(const DpmHeadShape& shape, const DpmBins& bins);
template <class T>
void dpm_head(Stream stream, const DpmHeadShape& shape, const DpmBins& bins, const DpmOptions& options,
              const DpmTableView& table, const T* x, const float* weight, const float* bias, const float* teacher,
              float* depth, float* lse, float* offset, float* result, float* workspace);
template <class T>
void dpm_head_grad(Stream stream, const DpmHeadShape& shape, const DpmBins& bins, const DpmOptions& options,
                   const DpmTableView& table, const T* x, const float* weight, const float* bias, const float* teacher,
                   const float* depth, const float* lse, const float* offset, const float* result, const float* dkl,
                   const float* ddepth, T* dx, float* dweight, float* dbias, Activation below, float* dbias_below,
                   float* workspace);
}  // namespace cpu
namespace cuda {
template <class T>
bool dpm_head_supported(const DpmHeadShape& shape, const DpmBins& bins);
template <class T>
size_t dpm_head_workspace(const DpmHeadShape& shape, const DpmBins& bins);
template <class T>
void dpm_head(Stream stream, const DpmHeadShape& shape, const DpmBins& bins, const DpmOptions& options,
              const DpmTableView& table, const T* x, const float* weight, const float* bias, const float* teacher,
              float* depth, float* lse, float* offset, float* result, float* workspace);
template <class T>
void dpm_head_grad(Stream stream, const DpmHeadShape& shape, const DpmBins& bins, const DpmOptions& options,
                   const DpmTableView& table, const T* x, const float* weight, const float* bias, const float* teacher,
                   const float* depth, const float* lse, const float* offset, const float* result, const float* dkl,
                   const float* ddepth, T* dx, float* dweight, float* dbias, Activation below, float* dbias_below,
                   float* workspace);
}  // namespace cuda
}  // namespace depthstill
