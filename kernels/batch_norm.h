// Batch normalisation with a fused activation over rows = N * H * W positions, per channel c:
//   y = act((x - mean) * rstd * weight + bias),  rstd = 1 / sqrt(var + eps)
//   x, y, dy, dx (rows, channels)
//   weight, bias, mean, rstd, running_mean, running_var, dweight, dbias (channels) float
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

// The batch norm z = act((x - mean) * rstd * weight + bias), (channels) each, as kernels may apply it to what they
// read. Without pointers there is none.
struct BatchNormInput {
  Activation act = Activation::kNone;
  const float *mean = nullptr, *rstd = nullptr, *weight = nullptr, *bias = nullptr;
};

// Gradients go here: dweight and dbias always, dx and y (what batch_norm gave, for an op that did not keep it) unless
// null.
template <class T>
struct BatchNormGradients {
  T* dx = nullptr;
  float *dweight = nullptr, *dbias = nullptr;
  T* y = nullptr;
};

// Float sums of differences cancel where this mean of theirs is too far from zero for this variance, whose error they
// make about 1e-5 * (mean^2 + variance). What is far below eps does not count.
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
// batch_norm_grad: assigns `to`; dx may be dy.
// batch_norm_grad_of_sums: dx, dweight and dbias where the producer of dz took its sums (2, channels): of dz and of
//   dz * (x - mean). norm's activation and bias have no effect. dx may be dz. Moves 3 elements.
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
void batch_norm(Stream stream, int64_t rows, int channels, const BatchNormInput& norm, const T* x, T* y);
template <class T>
void batch_norm_grad(Stream stream, int64_t rows, int channels, const BatchNormInput& norm, Statistics statistics,
                     const T* x, const T* dy, const BatchNormGradients<T>& to);
template <class T>
void batch_norm_grad_of_sums(Stream stream, int64_t rows, int channels, const BatchNormInput& norm,
                             Statistics statistics, const T* x, const float* sums, const T* dz,
                             const BatchNormGradients<T>& to);
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
void batch_norm(Stream stream, int64_t rows, int channels, const BatchNormInput& norm, const T* x, T* y);
template <class T>
void batch_norm_grad(Stream stream, int64_t rows, int channels, const BatchNormInput& norm, Statistics statistics,
                     const T* x, const T* dy, const BatchNormGradients<T>& to);
template <class T>
void batch_norm_grad_of_sums(Stream stream, int64_t rows, int channels, const BatchNormInput& norm,
                             Statistics statistics, const T* x, const float* sums, const T* dz,
                             const BatchNormGradients<T>& to);
}  // namespace cuda
}  // namespace depthstill
