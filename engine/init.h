// Initial weights. Each call draws from a counter-based stream of its own, named by (seed, parameter name), so the
// values of one parameter depend neither on the others nor on the order of calls.
#pragma once

#include <cstdint>
#include <string_view>

#include "engine/nn.h"

namespace depthstill {

// Normal, variance 2 / fan_out, for a convolution followed by ReLU (He et al. 2015). fan_out = kernel area * outputs.
void kaiming_normal_fan_out(const Tensor& weight, Layout layout, uint64_t seed, std::string_view name);

// Normal, variance 2 / fan_in: a chain of such convolutions and ReLUs keeps the mean square of what passes through.
// fan_in = kernel area * inputs.
void kaiming_normal_fan_in(const Tensor& weight, Layout layout, uint64_t seed, std::string_view name);

// Uniform in +-1 / sqrt(fan_in), PyTorch's default for the weight and bias of a convolution of `fan_in` inputs.
void uniform_fan_in(const Tensor& parameter, int64_t fan_in, uint64_t seed, std::string_view name);

// Makes all values positive.
void make_positive(const Tensor& parameter);

// Normal with mean 0.
void normal(const Tensor& parameter, double deviation, uint64_t seed, std::string_view name);

}  // namespace depthstill
