// Checks that every differentiable op gets, at the level of tensors: the recorded gradient against central differences,
// and each device against the CPU. Exactness against a double-precision reference is the business of tests/kernels.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <random>
#include <vector>

#include "engine/autograd.h"
#include "engine/tensor.h"
#include "kernels/core/error.h"
#include "kernels/core/library_options.h"
#include "tests/with_options.h"

namespace depthstill::test {

// The values are uniform in [low, high): never neutral values such as 0 or 1.
inline std::vector<float> random_values(int64_t n, uint32_t seed, float low = -1.0f, float high = 1.0f) {
  std::mt19937 generator(seed);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = low + (high - low) * static_cast<float>(generator() >> 8) * 0x1p-24f;
  return values;
}

inline Tensor random_tensor(const Shape& shape, uint32_t seed, float low = -1.0f, float high = 1.0f) {
  const auto values = random_values(shape.numel(), seed, low, high);
  return tensor<float>(shape, values);
}

inline Tensor to_bf16(const Tensor& x) {
  std::vector<bf16> values;
  for (const float v : to_vector<float>(x)) values.push_back(bf16(v));
  return tensor<bf16>(x.shape(), values);
}

inline std::vector<float> values_of(const Tensor& x) {
  if (x.dtype() == DType::kFloat) return to_vector<float>(x);
  std::vector<float> values;
  for (const bf16 v : to_vector<bf16>(x)) values.push_back(static_cast<float>(v));
  return values;
}

inline double dot(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

// |a - b| / (|b| + 1e-12) in the Euclidean norm.
inline double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    if (std::isnan(d)) return INFINITY;
    difference += d * d;
    norm += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return std::sqrt(difference) / (std::sqrt(norm) + 1e-12);
}

using Op = std::function<Tensor(const std::vector<Tensor>&)>;

struct OpResult {
  std::vector<float> y;
  std::vector<std::vector<float>> gradients;  // values, empty where the input got none
};

// Runs op and its gradient for a fixed random dy on `device`; inputs with differentiable[i] become leaves.
inline OpResult evaluate(const Op& op, const std::vector<Tensor>& inputs, const std::vector<bool>& differentiable,
                         Device device) {
  std::vector<Tensor> moved;
  for (size_t i = 0; i < inputs.size(); ++i) {
    moved.push_back(inputs[i].defined() ? clone(to_device(inputs[i], device)) : Tensor());
    if (moved[i].defined() && differentiable[i]) moved[i].set_requires_grad();
  }
  const Tensor y = op(moved);
  OpResult result;
  result.y = values_of(y);
  Tensor dy = random_tensor(y.shape(), 77);
  if (y.dtype() == DType::kBf16) dy = to_bf16(dy);
  backward(y, to_device(dy, device));
  for (const Tensor& x : moved) {
    result.gradients.push_back(x.defined() && x.grad().defined() ? values_of(x.grad()) : std::vector<float>());
  }
  return result;
}

struct GradientCheck {
  float step = 1e-2f;       // step of the central difference
  double tolerance = 2e-2;  // error relative to |gradient| |direction|, in fp32
  int directions = 3;
};

// Compares <dy, op(x + h v) - op(x - h v)> / 2h with <dx, v> for random directions v, input by input. Keep inputs at
// least `step` away from kinks (ReLU at 0, ties of a maximum).
inline void expect_gradients(const Op& op, const std::vector<Tensor>& inputs, std::vector<bool> differentiable = {},
                             const GradientCheck& check = {}) {
  if (differentiable.empty()) differentiable.assign(inputs.size(), true);
  const OpResult at = evaluate(op, inputs, differentiable, Device::kCpu);
  const NoGrad no_grad;
  const auto value = [&](size_t i, const std::vector<float>& x) {
    std::vector<Tensor> moved;
    for (const Tensor& input : inputs) moved.push_back(input.defined() ? clone(input) : Tensor());
    moved[i] = tensor<float>(inputs[i].shape(), x);
    const Tensor y = op(moved);
    return dot(values_of(y), to_vector<float>(random_tensor(y.shape(), 77)));
  };
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!differentiable[i] || !inputs[i].defined()) continue;
    ASSERT_FALSE(at.gradients[i].empty()) << "input " << i << " got no gradient";
    const auto x = to_vector<float>(inputs[i]);
    for (int d = 0; d < check.directions; ++d) {
      const auto v = random_values(inputs[i].numel(), 1000 + static_cast<uint32_t>(d));
      auto up = x, down = x;
      for (size_t k = 0; k < x.size(); ++k) {
        up[k] += check.step * v[k];
        down[k] -= check.step * v[k];
      }
      const double expected = (value(i, up) - value(i, down)) / (2 * static_cast<double>(check.step));
      const double found = dot(at.gradients[i], v);
      const double scale = std::sqrt(dot(at.gradients[i], at.gradients[i]) * dot(v, v)) + 1e-6;
      EXPECT_NEAR(found, expected, check.tolerance * scale) << "input " << i << ", direction " << d;
    }
  }
}

// Tells whether a second device can be compared: a GPU, or in builds without CUDA the emulator. Tolerances are those of
// fp32, not of TF32.
inline bool second_device() {
  library_options().strict_fp32 = true;
  if (!built_with_cuda()) enable_emulated_cuda();
  return available(Device::kCuda);
}

// Compares outputs and gradients of `op` on the second device with those on the CPU.
inline void expect_same_on_devices(const Op& op, const std::vector<Tensor>& inputs,
                                   std::vector<bool> differentiable = {}, double tolerance = 1e-5) {
  if (!second_device()) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  if (differentiable.empty()) differentiable.assign(inputs.size(), true);
  const OpResult cpu = evaluate(op, inputs, differentiable, Device::kCpu);
  const OpResult cuda = evaluate(op, inputs, differentiable, Device::kCuda);
  EXPECT_LE(relative_error(cuda.y, cpu.y), tolerance) << "output";
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!cpu.gradients[i].empty()) {
      EXPECT_LE(relative_error(cuda.gradients[i], cpu.gradients[i]), tolerance) << "gradient of input " << i;
    }
  }
}

// Calls check() with each of these candidates of the libraries taken wherever there are so many, else the last. One
// that does not run is left out, as the choice by the clock does.
inline void for_each_candidate(const std::vector<int>& candidates, const std::function<void()>& check) {
  LibraryOptions options = library_options();
  int agreed = 0;
  for (const int candidate : candidates) {
    options.candidate = candidate;
    SCOPED_TRACE(testing::Message() << "candidate " << candidate);
    const WithOptions with(options);
    try {
      check();
      ++agreed;
    } catch (const Error& error) {
      EXPECT_TRUE(did_not_run(error)) << error.what();
    }
  }
  EXPECT_GT(agreed, 0);
}

// The numbers 0 to count - 1.
inline std::vector<int> first_candidates(int count) {
  std::vector<int> candidates(static_cast<size_t>(count));
  std::iota(candidates.begin(), candidates.end(), 0);
  return candidates;
}

}  // namespace depthstill::test
