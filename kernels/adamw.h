// AdamW (Loshchilov and Hutter 2019, as torch.optim.AdamW) over a list of fp32 tensors, with clipping by the global
// norm (as torch.nn.utils.clip_grad_norm_). One step:
//   sum_of_squares   sum = sum over all tensors of grad^2
//   adamw_prepare    norm = unscale * sqrt(sum);  grad_scale = unscale * min(1, max_norm / (norm + 1e-6));  t += 1
//   adamw            g = grad_scale * grad;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
//                    value = value (1 - lr weight_decay) - lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)
// where lr is that of the state times the tensor's own factor.
// lr, t and grad_scale live beside the tensors, so a step needs no word from the host but a new lr. If the norm is not
// finite, t, m, v and the values stay as they are. A finite gradient may still make them infinite or NaN (a learning
// rate that is too high, a square that overflows): that is noted on the device, for the host to read when it likes.
// Beside a value its copy in bf16 may be written, which whatever multiplies in bf16 reads (core/rounded_copies.h).
// Bound: memory. Bytes per element: 4 for the norm, 28 for the update (grad, value, m, v read; value, m, v written), 2
// for the copy.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

#include "kernels/core/bf16.h"
#include "kernels/core/stream.h"

namespace depthstill {

struct AdamWParams {
  float beta1 = 0.95f, beta2 = 0.99f, eps = 1e-8f, weight_decay = 0.01f;
};

// The state lies in the memory of the device.
struct AdamWState {
  int64_t step = 0;  // t: updates so far
  float lr = 0.0f;
  float grad_scale = 1.0f;
  float step_size = 0.0f;      // lr / (1 - beta1^t)
  float inverse_bias2 = 1.0f;  // 1 / sqrt(1 - beta2^t)
  float norm = 0.0f;           // norm of the unscaled gradient, before clipping
  int32_t finite = 1;          // 0: the norm is infinite or NaN
  int64_t dropped = 0;         // updates so far that were left out because of that
};

struct AdamWSlot {
  int64_t n = 0;
  const float* grad = nullptr;
  float* value = nullptr;
  float* m = nullptr;
  float* v = nullptr;
  float lr_factor = 1.0f;   // lr is that of the state times this
  bf16* rounded = nullptr;  // value, rounded; null: not wanted
};

// NaN otherwise, as each difference then is.
DS_HOST_DEVICE inline float zero_if_finite(float value, float m, float v) {
  return (value - value) + (m - m) + (v - v);
}

// The arithmetic of adamw_prepare and adamw, shared by the twins.
DS_HOST_DEVICE inline void adamw_prepare_state(const AdamWParams& params, float unscale, float max_norm, double sum,
                                               AdamWState* state) {
  const float norm = static_cast<float>(static_cast<double>(unscale) * std::sqrt(sum));
  state->norm = norm;
  state->finite = norm - norm == 0.0f;
  if (!state->finite) {
    ++state->dropped;
    return;
  }
  const float clip = max_norm > 0.0f ? max_norm / (norm + 1e-6f) : 1.0f;
  state->grad_scale = unscale * (clip < 1.0f ? clip : 1.0f);
  const auto t = static_cast<double>(++state->step);
  state->step_size = static_cast<float>(state->lr / (1.0 - std::pow(static_cast<double>(params.beta1), t)));
  state->inverse_bias2 = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(static_cast<double>(params.beta2), t)));
}

// Returns the state with the learning rate of a slot that has this factor.
DS_HOST_DEVICE inline AdamWState adamw_state_for(AdamWState state, float lr_factor) {
  state.lr *= lr_factor;
  state.step_size *= lr_factor;
  return state;
}

DS_HOST_DEVICE inline void adamw_update(const AdamWParams& params, const AdamWState& state, float grad, float* value,
                                        float* m, float* v) {
  const float g = state.grad_scale * grad;
  *m += (1.0f - params.beta1) * (g - *m);
  *v = params.beta2 * *v + (1.0f - params.beta2) * g * g;
  *value = *value * (1.0f - state.lr * params.weight_decay) -
           state.step_size * *m / (std::sqrt(*v) * state.inverse_bias2 + params.eps);
}

// `slots` is in host memory, the pointers in it, `sum`, `state` and `broken` in that of the device. max_norm <= 0: no
// clipping. *broken changes from 0 where the update leaves a value, m or v that is not finite.
namespace cpu {
void adamw_set_lr(Stream stream, float lr, AdamWState* state);
void sum_of_squares(Stream stream, std::span<const AdamWSlot> slots, double* sum);
void adamw_prepare(Stream stream, const AdamWParams& params, float unscale, float max_norm, const double* sum,
                   AdamWState* state);
void adamw(Stream stream, std::span<const AdamWSlot> slots, const AdamWParams& params, const AdamWState* state,
           int32_t* broken);
}  // namespace cpu
namespace cuda {
void adamw_set_lr(Stream stream, float lr, AdamWState* state);
void sum_of_squares(Stream stream, std::span<const AdamWSlot> slots, double* sum);
void adamw_prepare(Stream stream, const AdamWParams& params, float unscale, float max_norm, const double* sum,
                   AdamWState* state);
void adamw(Stream stream, std::span<const AdamWSlot> slots, const AdamWParams& params, const AdamWState* state,
           int32_t* broken);
}  // namespace cuda
}  // namespace depthstill
