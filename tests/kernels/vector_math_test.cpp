#include "kernels/core/vector_math.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace depthstill {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();

// Every 9973rd float; errors in units of the float spacing at the exact value.
template <class F, class G>
double worst_ulp(float low, float high, F approximate, G exact) {
  double worst = 0;
  for (uint32_t bits = 0; bits < 0xff800000u; bits += 9973) {
    const float x = std::bit_cast<float>(bits);
    if (!(x > low && x < high)) continue;
    const double reference = exact(static_cast<double>(x));
    const float rounded = std::abs(static_cast<float>(reference));
    const double spacing = static_cast<double>(std::nextafter(rounded, kInfinity) - rounded);
    worst = std::max(worst, std::abs(static_cast<double>(approximate(x)) - reference) / spacing);
  }
  return worst;
}

TEST(VectorMath, ExpIsWithinTwoUlp) {
  EXPECT_LE(worst_ulp(-87.33f, 88.37f, vector_exp, [](double x) { return std::exp(x); }), 2.0);
}

TEST(VectorMath, LogIsWithinTwoUlp) {
  EXPECT_LE(worst_ulp(
                0.0f, kInfinity, [](float x) { return vector_log(x); }, [](double x) { return std::log(x); }),
            2.0);
}

TEST(VectorMath, LogInDoubleIsWithinTwoUlp) {
  uint64_t state = 1;
  double worst = 0;
  for (int i = 0; i < 400000; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    // Of every exponent, and as many between 1/2 and 2, where a depth's ratios lie.
    const double any = std::bit_cast<double>(state >> 1),
                 near = std::ldexp(1.0 + std::ldexp(static_cast<double>(state >> 12), -52), i % 2 - 1);
    for (const double x : {any, near}) {
      if (!std::isnormal(x)) continue;
      const double exact = std::log(x), spacing = std::nextafter(std::abs(exact), INFINITY) - std::abs(exact);
      worst = std::max(worst, std::abs(vector_log(x) - exact) / spacing);
    }
  }
  EXPECT_LE(worst, 2.0);  // both are rounded
}

TEST(VectorMath, ErfIsWithinTwoUlp) {
  EXPECT_LE(worst_ulp(-kInfinity, kInfinity, vector_erf, [](double x) { return std::erf(x); }), 2.0);
}

TEST(VectorMath, SigmoidIsWithinThreeUlp) {
  // Two roundings and a division after exp; below -87 results leave the normal numbers.
  EXPECT_LE(worst_ulp(-87.0f, kInfinity, vector_sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }), 3.0);
}

TEST(VectorMath, SpecialValues) {
  EXPECT_EQ(vector_erf(0.0f), 0.0f);
  EXPECT_TRUE(std::signbit(vector_erf(-0.0f)));
  EXPECT_EQ(vector_erf(kInfinity), 1.0f);
  EXPECT_EQ(vector_erf(-kInfinity), -1.0f);
  EXPECT_TRUE(std::isnan(vector_erf(kNaN)));
  EXPECT_EQ(vector_sigmoid(-kInfinity), 0.0f);
  EXPECT_EQ(vector_sigmoid(kInfinity), 1.0f);
  EXPECT_TRUE(std::isnan(vector_sigmoid(kNaN)));
  EXPECT_EQ(vector_exp(0.0f), 1.0f);
  EXPECT_EQ(vector_exp(-88.0f), 0.0f);
  EXPECT_EQ(vector_exp(-kInfinity), 0.0f);
  EXPECT_EQ(vector_exp(-1e30f), 0.0f);
  EXPECT_EQ(vector_exp(89.0f), kInfinity);
  EXPECT_EQ(vector_exp(kInfinity), kInfinity);
  EXPECT_TRUE(std::isnan(vector_exp(kNaN)));
  EXPECT_EQ(vector_log(1.0f), 0.0f);
  EXPECT_EQ(vector_log(0.0f), -kInfinity);
  EXPECT_EQ(vector_log(kInfinity), kInfinity);
  EXPECT_TRUE(std::isnan(vector_log(-1.0f)));
  EXPECT_TRUE(std::isnan(vector_log(kNaN)));
  EXPECT_EQ(vector_log(1.0), 0.0);
  EXPECT_EQ(vector_log(0.0), -HUGE_VAL);
  EXPECT_EQ(vector_log(HUGE_VAL), HUGE_VAL);
  EXPECT_TRUE(std::isnan(vector_log(-1.0)));
  EXPECT_TRUE(std::isnan(vector_log(std::nan(""))));
}

}  // namespace
}  // namespace depthstill
