// Batch normalisation with a fused activation over rows = N * H * W positions, per channel c:
//   y = act((x - mean) * rstd * weight + bias),  rstd = 1 / sqrt(var + eps)
//   x, y, dy, dx (rows, channels)   weight, bias, mean, rstd, running_mean, running_var, dweight, dbias (channels)
//   float
// Gradient, with dz = dy * act'(y), h = (x - mean) * rstd and <.> the mean over the rows:
//   dbias = sum dz   dweight = sum dz * h
//   dx = weight * rstd * (dz - <dz> - h * <dz * h>)   statistics of this batch (training)
//   dx = weight * rstd * dz                           constant statistics (evaluation, frozen)
// y is recomputed from x, which costs no memory traffic.
// Bound: memory. Elements moved: statistics 1 (ready ones 0), normalisation 2, gradient 5 (x and dy twice, dx once),
// and 1 more where it also stores y.
#pragma once

#include <cstdint>

#include "kernels/activation.h"
#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

enum class Statistics : uint8_t { kBatch, kConstant };

// A batch norm that a kernel applies to what it reads: z = act((x - mean) * rstd * weight + bias), (channels) each;
// none without pointers.
struct BatchNormInput {
  Activation act = Activation::kNone;
  const float *mean = nullptr, *rstd = nullptr, *weight = nullptr, *bias = nullptr;
};

// Whether sums in float of differences that have this mean and variance are too far from zero for the variance, whose
// error they make about 1e-5 * (mean^2 + variance). What is far below eps does not count.
DS_HOST_DEVICE inline bool cancels(double mean, double variance) { return mean * mean > 100.0 * (variance + 1e-5); }

// batch_norm_batch_stats: assigns mean and rstd of x (biased variance) and moves the running statistics:
//   running = (1 - momentum) * running + momentum * (mean, var * rows / (rows - 1)).  rows >= 2.
// batch_norm_moments: assigns moments (2, channels), the mean and biased variance of x. Sums are of differences to
//   values of x itself, so that a mean far from zero does not cancel the variance.
// batch_norm_moments_of_sums: the same where x's producer left in moments the float sums of d = x - guess
//   and of d^2; guess (channels) may be the running mean. Where the mean is more than 10 standard deviations from it,
//   such sums say little of the variance, and x is read again.
// batch_norm_ready_stats: batch_norm_batch_stats from moments that x's producer took.
// batch_norm_running_stats: assigns mean and rstd from the running statistics.
// batch_norm_grad: assigns dweight, dbias and, unless null, dx, which may be dy, and y: what batch_norm gave, for an op
//   that did not keep it.
// batch_norm_grad_of_sums: the same where the producer of dz took its sums (2, channels): of dz and of dz * (x - mean).
//   dx may be dz. Moves 3 elements.
namespace cpu {
template <class T>
void batch_norm_batch_stats(Stream stream, int64_t rows, int channels, float eps, float momentum, const T* x,
                            float* running_mean, float* running_var, float* mean, float* rstd);
template <class T>
void batch_norm_moments(Stream stream, int64_t rows, int channels, const T* x, float* moments);
template <class T>
void batch_norm_moments_of_sums(Stream stream, int64_t rows, int channels, const T* x, const float* guess,
                                float* moments);
void batch_norm_ready_stats(Stream stream, int64_t rows, int channels, float eps, float momentum, const float* moments,
                            float* running_mean, float* running_var, float* mean, float* rstd);
void batch_norm_running_stats(Stream stream, int channels, float eps, const float* running_mean,
                              const float* running_var, float* mean, float* rstd);
template <class T>
void batch_norm(Stream stream, int64_t rows, int channels, Activation act, const T* x, const float* mean,
                const float* rstd, const float* weight, const float* bias, T* y);
template <class T>
void batch_norm_grad(Stream stream, int64_t rows, int channels, Activation act, Statistics statistics, const T* x,
                     const float* mean, const float* rstd, const float* weight, const float* bias, const T* dy, T* dx,
                     float* dweight, float* dbias, T* y);
template <class T>
void batch_norm_grad_of_sums(Stream stream, int64_t rows, int channels, Statistics statistics, const T* x,
                             const float* mean, const float* rstd, const float* weight, const float* sums, const T* dz,
                             T* dx, float* dweight, float* dbias);
}  // namespace cpu
namespace cuda {
template <class T>
void batch_norm_batch_stats(Stream stream, int64_t rows, int channels, float eps, float momentum, const T* x,
                            float* running_mean, float* running_var, float* mean, float* rstd);
template <class T>
void batch_norm_moments(Stream stream, int64_t rows, int channels, const T* x, float* moments);
template <class T>
void batch_norm_moments_of_sums(Stream stream, int64_t rows, int channels, const T* x, const float* guess,
                                float* moments);
void batch_norm_ready_stats(Stream stream, int64_t rows, int channels, float eps, float momentum, const float* moments,
                            float* running_mean, float* running_var, float* mean, float* rstd);
void batch_norm_running_stats(Stream stream, int channels, float eps, const float* running_mean,
                              const float* running_var, float* mean, float* rstd);
template <class T>
void batch_norm(Stream stream, int64_t rows, int channels, Activation act, const T* x, const float* mean,
                const float* rstd, const float* weight, const float* bias, T* y);
template <class T>
void batch_norm_grad(Stream stream, int64_t rows, int channels, Activation act, Statistics statistics, const T* x,
                     const float* mean, const float* rstd, const float* weight, const float* bias, const T* dy, T* dx,
                     float* dweight, float* dbias, T* y);
template <class T>
void batch_norm_grad_of_sums(Stream stream, int64_t rows, int channels, Statistics statistics, const T* x,
                             const float* mean, const float* rstd, const float* weight, const float* sums, const T* dz,
                             T* dx, float* dweight, float* dbias);
}  // namespace cuda
}  // namespace depthstill
