// Branch-free exp, log and erf for CPU loops that the compiler vectorises (libm calls would keep them scalar).
// exp and log: Cephes polynomials after exact range reduction. At most 2 ulp off over the stated range. NaN stays NaN.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace depthstill {

// e^x. Results below 2^-126 are 0; above 2^127.5 (x > 88.37) infinity.
inline float vector_exp(float x) {
  const float clamped_low = x < -87.3365f ? -87.3365f : x;
  const float t = clamped_low > 88.72f ? 88.72f : clamped_low;
  // Adding 1.5 * 2^23 rounds to an integer, whose low bits then sit in the mantissa.
  const float shifted = t * 1.44269504f + 12582912.0f;
  const float k = shifted - 12582912.0f;
  const float r = (t - k * 0.693359375f) + k * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const float power = std::bit_cast<float>((std::bit_cast<uint32_t>(shifted) << 23) + 0x3f800000u);
  return x < -87.3365f ? 0.0f : p * power;
}

// ln x for x >= 0: -infinity at 0; NaN for negative x.
inline float vector_log(float x) {
  const bool tiny = x < std::numeric_limits<float>::min();
  const float normal = tiny ? x * 8388608.0f : x;
  // x = m * 2^e with m in [sqrt(1/2), sqrt(2)).
  const uint32_t bits = std::bit_cast<uint32_t>(normal) - 0x3f3504f3u;
  const float e = static_cast<float>(static_cast<int32_t>(bits) >> 23) - (tiny ? 23.0f : 0.0f);
  const float f = std::bit_cast<float>((bits & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
  const float f2 = f * f;
  float p = 7.0376836292e-2f;
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  const float value = (f + ((p * f * f2 - e * 2.12194440e-4f) - 0.5f * f2)) + e * 0.693359375f;
  const float infinity = std::numeric_limits<float>::infinity();
  const float at_least_zero = x == 0.0f ? -infinity : std::numeric_limits<float>::quiet_NaN();
  return x > 0.0f ? (x < infinity ? value : x) : at_least_zero;
}

// ln x in double for x that are normal, 0, negative or not finite: at most 1 ulp off. The polynomial of fdlibm's
// (Sun Microsystems 1993), in s = f / (2 + f) with 1 + f in [sqrt(1/2), sqrt(2)).
inline double vector_log(double x) {
  constexpr uint64_t kRoot = 0x3fe6a09e667f3bcdu, kOne = 0x3ff0000000000000u, kMantissa = 0x000fffffffffffffu;
  const uint64_t bits = std::bit_cast<uint64_t>(x) + (kOne - kRoot);
  // 2^52 + n is a double whose last bits are n.
  const double k = std::bit_cast<double>((bits >> 52) | 0x4330000000000000u) - (0x1p52 + 1023.0);
  const double f = std::bit_cast<double>((bits & kMantissa) + kRoot) - 1.0;
  const double s = f / (2.0 + f), z = s * s, half_square = 0.5 * f * f;
  double p = 1.479819860511658591e-1;
  p = p * z + 1.531383769920937332e-1;
  p = p * z + 1.818357216161805012e-1;
  p = p * z + 2.222219843214978396e-1;
  p = p * z + 2.857142874366239149e-1;
  p = p * z + 3.999999999940941908e-1;
  p = p * z + 6.666666666666735130e-1;
  const double correction = s * (half_square + p * z) + k * 1.90821492927058770002e-10;
  const double value = k * 6.93147180369123816490e-1 - ((half_square - correction) - f);
  const double infinity = std::numeric_limits<double>::infinity();
  const double at_least_zero = x == 0.0 ? -infinity : std::numeric_limits<double>::quiet_NaN();
  return x > 0.0 ? (x < infinity ? value : x) : at_least_zero;
}

// erf x. Minimax fits of erf(x) / x in x^2 below 0.95, and of ln erfc |x| above.
inline float vector_erf(float x) {
  const float size = std::abs(x), s = x * x;
  float p = -5.8620982e-4f;
  p = p * s + 4.9675112e-3f;
  p = p * s - 2.6748868e-2f;
  p = p * s + 1.1281321e-1f;
  p = p * s - 3.7612447e-1f;
  p = p * s + 1.2837914e-1f;
  const float inner = x + x * p;

  const float t = size > 4.0f ? 4.0f : size;  // erf 4 rounds to 1
  float q = 1.9150425e-4f;
  q = q * t - 2.9995418e-3f;
  q = q * t + 2.2052003e-2f;
  q = q * t - 1.0356690e-1f;
  q = q * t - 6.3760000e-1f;
  q = q * t - 1.1274261f;
  q = q * t - 2.5644357e-4f;
  const float outer = std::copysign(1.0f - vector_exp(q), x);
  return size < 0.95f ? inner : outer;
}

// 1 / (1 + e^-x)
inline float vector_sigmoid(float x) { return 1.0f / (1.0f + vector_exp(-x)); }

}  // namespace depthstill
