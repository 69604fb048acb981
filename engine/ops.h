// The catalogue of differentiable ops: one declaration each, with the formula in a line. Images are (N, H, W, C), depth
// maps (N, H, W) in metres. Each op lives in engine/ops/<op>.cpp and kernels/<op>.*; its contract is in kernels/<op>.h.
#pragma once

#include "engine/autograd.h"
#include "engine/tensor.h"
#include "kernels/activation.h"
#include "kernels/gelu.h"

namespace depthstill {

// ---- convolution and normalisation ------------------------------------------------------------------------------
struct Conv2dOptions {
  int stride = 1, dilation = 1;
  int pad_top = 0, pad_bottom = 0, pad_left = 0, pad_right = 0;
  Activation activation = Activation::kNone;
};
// y = act(x * weight + bias); weight (O, R, S, C) fp32, bias (O) fp32 or undefined.
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options);
// A convolution may take `moments` for the batch norm above it: mean and biased variance of y (2, C), without history.
struct ConvolutionResult {
  Tensor y, moments;
};
// A convolution without bias and activation that also takes the moments of y. mean_guess (O) fp32 is near their mean,
// such as the running mean.
ConvolutionResult conv2d_moments(const Tensor& x, const Tensor& weight, const Tensor& mean_guess,
                                 const Conv2dOptions& options);
struct DepthwiseConv2dOptions {
  int stride = 1, dilation = 1;
  int pad_top = 0, pad_left = 0;  // pads below and to the right are what the output size ceil(size / stride) needs
};
// One filter per channel; weight (K, K, C) fp32, K = 3 or 5. The short form pads equally on all sides.
Tensor depthwise_conv2d(const Tensor& x, const Tensor& weight, const DepthwiseConv2dOptions& options);
Tensor depthwise_conv2d(const Tensor& x, const Tensor& weight, int stride, int dilation);
// Transposed convolution whose kernel is its stride; weight (R, S, O, I) fp32, bias (O) fp32 or undefined.
Tensor conv_transpose2d(const Tensor& x, const Tensor& weight, const Tensor& bias, int stride);

// The 1 x 1 convolution to one channel that a relative head ends in, fp32 whatever x is: (N, H, W, C) -> (N, H, W, 1);
// weight (1, 1, 1, C) and bias (1) fp32; kind: kNone or kRelu.
Tensor head_conv(const Tensor& x, const Tensor& weight, const Tensor& bias, Activation kind);

struct BatchNormOptions {
  bool training = false;  // true: batch statistics, which also update the running ones
  float momentum = 0.1f;  // running = (1 - momentum) * running + momentum * batch (variance unbiased)
  float eps = 1e-5f;
  Activation activation = Activation::kNone;
};
// y = act((x - mean) * rstd * weight + bias), statistics per channel over N, H, W. `moments` (2, C) fp32: mean and
// biased variance of x where its producer took them; without, training reads x once more.
Tensor batch_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& running_mean,
                  const Tensor& running_var, const BatchNormOptions& options, const Tensor& moments = {});

// Batch norm comes in two parts where a convolution normalises its input as it reads it: the statistics, which also
// move the running ones, and the convolution of z = act((x - mean) * rstd * weight + bias). z is not kept.
struct BatchNormStatistics {
  Tensor mean, rstd;
  bool of_batch = false;               // they depend on x
  const std::string* range = nullptr;  // range of the profile to which the batch norm's gradient belongs
};
BatchNormStatistics batch_norm_statistics(const Tensor& x, const Tensor& running_mean, const Tensor& running_var,
                                          const BatchNormOptions& options, const Tensor& moments = {});
// y = conv2d(z, filter) without bias and activation. A mean_guess asks for the moments of y too, as above.
ConvolutionResult batch_norm_conv2d(const Tensor& x, const BatchNormStatistics& statistics, const Tensor& weight,
                                    const Tensor& bias, Activation activation, const Tensor& filter,
                                    const Conv2dOptions& options, const Tensor& mean_guess = {});
// y = depthwise_conv2d(z, filter). take_moments asks for the moments of y too.
ConvolutionResult batch_norm_depthwise_conv2d(const Tensor& x, const BatchNormStatistics& statistics,
                                              const Tensor& weight, const Tensor& bias, Activation activation,
                                              const Tensor& filter, const DepthwiseConv2dOptions& options,
                                              bool take_moments = false);
Tensor activation(const Tensor& x, Activation kind);
Tensor max_pool2d(const Tensor& x, int kernel, int stride, int pad);

// ---- transformers: tokens are (N, T, C) -------------------------------------------------------------------------
// y = x * weight^T + bias over the last dimension; x (..., I), weight (O, I) fp32, bias (O) fp32 or undefined.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias);
Tensor gelu(const Tensor& x, GeluKind kind);
// y = (x - mean) * rstd * weight + bias, statistics over the last dimension; weight and bias (C) fp32.
Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps);
// y = x + gamma * branch over the last dimension; gamma (C) fp32.
Tensor layer_scale(const Tensor& x, const Tensor& branch, const Tensor& gamma);
Tensor swiglu(const Tensor& x);  // (..., 2C) -> (..., C): silu(x[..., :C]) * x[..., C:]
// [cls_token; patches] + pos_embed: (N, T, C), (1, 1, C) fp32, (1, 1 + T, C) fp32 -> (N, 1 + T, C).
Tensor embed_tokens(const Tensor& patches, const Tensor& cls_token, const Tensor& pos_embed);
// y = softmax(q k^T / sqrt(d)) v per head; qkv (N, T, 3C) holds q, k, v, head h in channels h * d to (h + 1) * d - 1.
Tensor attention(const Tensor& qkv, int64_t heads);

// ---- shape and arithmetic ---------------------------------------------------------------------------------------
Tensor add(const Tensor& a, const Tensor& b);
Tensor scale(const Tensor& x, float factor);
// These ops work element by element, for losses of your own; both tensors have one shape. Where no gradient arrives,
// none goes on, also where the slope is infinite.
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, const Tensor& b);
Tensor abs(const Tensor& x);
Tensor exp(const Tensor& x);
Tensor log(const Tensor& x);
Tensor square(const Tensor& x);
Tensor clamp_max(const Tensor& x, float max);
// One fp32 element over those elements of x, fp32, whose byte in `mask` is not 0; without a mask, over all. Over none
// it is 0.
Tensor mean(const Tensor& x, const Tensor& mask = {});
Tensor sum(const Tensor& x, const Tensor& mask = {});
// The mask of depth (N, H, W): rows from first_row on, and if `only_valid` pixels that are finite and > 0. It has no
// gradient.
Tensor depth_mask(const Tensor& depth, int64_t first_row = 0, bool only_valid = true);
Tensor reshape(const Tensor& x, const Shape& shape);
Tensor cast(const Tensor& x, DType dtype);                           // fp32 <-> bf16
Tensor crop_rows(const Tensor& x, int64_t first_row, int64_t rows);  // (N, H, W[, C]) -> (N, rows, W[, C])
Tensor pad_rows(const Tensor& x, int64_t top, int64_t bottom);       // zeros above and below
Tensor softmax(const Tensor& x);                                     // over the last dimension
// (N, H, W, C) -> (N, H/b, W/b, b*b*C), channels in the order (row, column, channel), and back, plus bias (C) if any.
Tensor space_to_depth(const Tensor& x, int block);
Tensor depth_to_space(const Tensor& x, int block, const Tensor& bias = {});

// A map whose rows above `first_row` are not stored: a tensor of `height - first_row` rows.
struct RowWindow {
  int64_t first_row = 0;
  int64_t height = 0;  // height of the whole map
};
// Bilinear resize to (out_height, out_width). With windows, x holds rows [in.first_row, in.height) of its map and y
// rows [out.first_row, out.height); the default windows are whole maps.
Tensor upsample_bilinear(const Tensor& x, int64_t out_height, int64_t out_width, bool align_corners);
Tensor upsample_bilinear(const Tensor& x, RowWindow in, RowWindow out, int64_t out_width, bool align_corners);
// x resized to the size of tap (bilinear), and the channels of tap behind its own: rows [first_row, tap's height). x is
// as above; where it has tap's size, it is copied.
Tensor upsample_concat(const Tensor& x, RowWindow in, const Tensor& tap, int64_t first_row, bool align_corners);
// Bicubic resize (A = -0.75, edges clamped): output o reads around (o + 1/2) / scale - 1/2; scale 0 means out / in.
Tensor upsample_bicubic(const Tensor& x, int64_t out_height, int64_t out_width, double scale_height,
                        double scale_width);
// Windows of x (N, S, S) fp32 resized bilinearly to side x side: (K, patch, patch). windows (K, 4) int32 {image, row,
// column, side}, inside the resized map, which is checked on the CPU.
Tensor resize_windows(const Tensor& x, const Tensor& windows, int64_t patch);

}  // namespace depthstill
