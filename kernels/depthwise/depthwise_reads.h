// A depthwise convolution on the CPU reads its inputs through these (kernels/depthwise/depthwise_conv2d.cpp).
#pragma once

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "kernels/batch_norm.h"
#include "kernels/core/channels.h"

namespace depthstill::cpu {

// Reads inputs as they are.
struct Plain {
  template <class V>
  struct Channels {
    Channels(const Plain&, int64_t) {}
    template <class T>
    V operator()(const T* x) const {
      return load<V>(x);
    }
  };
  bool one_by_one() const { return false; }
};

#if defined(__AVX512F__)
inline constexpr __mmask16 kAll = 0xffff;  // GCC 12 warns of what the intrinsics without a mask leave undefined
#endif

// The larger and the smaller of a bound and x, and NaN where x is: in one instruction, which the compiler does not
// find.
template <class V>
inline V max_of(V bound, V x) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<V, Lanes>)
    return std::bit_cast<Lanes>(_mm512_maskz_max_ps(kAll, std::bit_cast<__m512>(bound), std::bit_cast<__m512>(x)));
#endif
  return bound > x ? bound : x;
}
template <class V>
inline V min_of(V bound, V x) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<V, Lanes>)
    return std::bit_cast<Lanes>(_mm512_maskz_min_ps(kAll, std::bit_cast<__m512>(bound), std::bit_cast<__m512>(x)));
#endif
  return bound < x ? bound : x;
}

// Reads inputs through the batch norm. Its activations are clamps that NaN passes. The sigmoid, which no
// encoder has here, is for single channels: a call in the loop would put everything out of the registers.
struct Normalised {
  const float *scale, *shift;
  float low, high;
  bool sigmoid;

  Normalised(const BatchNormInput& norm, int64_t C, float* coefficients)
      : scale(coefficients),
        shift(coefficients + C),
        low(norm.act == Activation::kNone || norm.act == Activation::kSigmoid ? -kInfinity : 0.0f),
        high(norm.act == Activation::kRelu6 ? 6.0f : kInfinity),
        sigmoid(norm.act == Activation::kSigmoid) {
    for (int64_t c = 0; c < C; ++c) {
      coefficients[c] = norm.rstd[c] * norm.weight[c];
      coefficients[C + c] = norm.bias[c] - norm.mean[c] * coefficients[c];
    }
  }

  template <class V>
  struct Channels {
    V scale, shift, low, high;
    bool sigmoid;

    Channels(const Normalised& norm, int64_t c)
        : scale(load<V>(norm.scale + c)),
          shift(load<V>(norm.shift + c)),
          low(V{} + norm.low),
          high(V{} + norm.high),
          sigmoid(norm.sigmoid) {}
    template <class T>
    V operator()(const T* x) const {
      return normalise(load<V>(x));
    }
    V normalise(V x) const {
      V z = min_of(high, max_of(low, x * scale + shift));
      if constexpr (std::is_same_v<V, float>) {
        if (sigmoid) z = activate<Activation::kSigmoid>(z);
      }
      return z;
    }
  };
  bool one_by_one() const { return sigmoid; }

  // dz times the slope of the activation where it is z.
  template <class V>
  V through(V dz, V z) const {
    if constexpr (std::is_same_v<V, float>) {
      if (sigmoid) return dz * z * (1.0f - z);
    }
    return z > low ? (z < high ? dz : V{}) : V{};
  }

 private:
  static constexpr float kInfinity = std::numeric_limits<float>::infinity();
};

// The channels that are taken kLanes at a time.
template <class Read>
int64_t vector_channels(const Read& read, int64_t C) {
  return read.one_by_one() ? 0 : C / kLanes * kLanes;
}

}  // namespace depthstill::cpu
