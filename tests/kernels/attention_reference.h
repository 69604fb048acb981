// Attention as sums in double, and the CUDA kernels' results beside it.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <vector>

#include "kernels/attention/attention.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill::attention_test {

using namespace kernel_test;

template <class T>
struct Case {
  AttentionShape shape;
  std::vector<T> qkv, dy;

  explicit Case(const AttentionShape& s, float magnitude = 2.0f)
      : shape(s),
        qkv(random_values<T>(static_cast<size_t>(s.N * s.T * 3 * s.C), 1, -magnitude, 1.2f * magnitude)),
        dy(random_values<T>(static_cast<size_t>(s.N * s.T * s.C), 2, -1.5f, 1.0f)) {}

  size_t qkv_index(int64_t n, int64_t t, int64_t part, int64_t h, int64_t c) const {
    return static_cast<size_t>((n * shape.T + t) * 3 * shape.C + part * shape.C + h * shape.d() + c);
  }
  size_t y_index(int64_t n, int64_t t, int64_t h, int64_t c) const {
    return static_cast<size_t>((n * shape.T + t) * shape.C + h * shape.d() + c);
  }
};

struct Expected {
  std::vector<double> y, lse, dqkv;
};

// One query's row of the formulas.
template <class T>
void add_row(const Case<T>& in, int64_t n, int64_t h, int64_t i, Expected& e) {
  const int64_t tokens = in.shape.T, d = in.shape.d();
  const auto value = [&](int64_t t, int64_t part, int64_t c) {
    return to_double(in.qkv[in.qkv_index(n, t, part, h, c)]);
  };
  const double scale = 1 / std::sqrt(static_cast<double>(d));
  std::vector<double> p(static_cast<size_t>(tokens)), dp(p.size());
  double max = -INFINITY, sum = 0, delta = 0;
  for (int64_t j = 0; j < tokens; ++j) {
    for (int64_t c = 0; c < d; ++c) p[static_cast<size_t>(j)] += scale * value(i, 0, c) * value(j, 1, c);
    max = std::max(max, p[static_cast<size_t>(j)]);
  }
  for (double& v : p) sum += std::exp(v - max);
  for (double& v : p) v = std::exp(v - max) / sum;
  e.lse[static_cast<size_t>((n * in.shape.heads + h) * tokens + i)] = max + std::log(sum);
  for (int64_t c = 0; c < d; ++c) {
    const double dy = to_double(in.dy[in.y_index(n, i, h, c)]);
    double y = 0;
    for (int64_t j = 0; j < tokens; ++j) {
      y += p[static_cast<size_t>(j)] * value(j, 2, c);
      dp[static_cast<size_t>(j)] += dy * value(j, 2, c);
      e.dqkv[in.qkv_index(n, j, 2, h, c)] += p[static_cast<size_t>(j)] * dy;
    }
    e.y[in.y_index(n, i, h, c)] = y;
    delta += y * dy;
  }
  for (int64_t j = 0; j < tokens; ++j) {
    const double ds = scale * p[static_cast<size_t>(j)] * (dp[static_cast<size_t>(j)] - delta);
    for (int64_t c = 0; c < d; ++c) {
      e.dqkv[in.qkv_index(n, i, 0, h, c)] += ds * value(j, 1, c);
      e.dqkv[in.qkv_index(n, j, 1, h, c)] += ds * value(i, 0, c);
    }
  }
}

template <class T>
Expected expected_results(const Case<T>& in) {
  const AttentionShape& s = in.shape;
  Expected e{std::vector<double>(in.dy.size()), std::vector<double>(static_cast<size_t>(s.N * s.heads * s.T)),
             std::vector<double>(in.qkv.size())};
  for (int64_t n = 0; n < s.N; ++n) {
    for (int64_t h = 0; h < s.heads; ++h) {
      for (int64_t i = 0; i < s.T; ++i) add_row(in, n, h, i, e);
    }
  }
  return e;
}

// The part q, k or v of a gradient: each is compared with its own largest value.
template <class V>
std::vector<V> part_of(const AttentionShape& s, const std::vector<V>& dqkv, int64_t part) {
  std::vector<V> values;
  for (int64_t token = 0; token < s.N * s.T; ++token) {
    for (int64_t c = 0; c < s.C; ++c) values.push_back(dqkv[static_cast<size_t>((token * 3 + part) * s.C + c)]);
  }
  return values;
}

template <class T>
struct Results {
  std::vector<T> y, dqkv;
  std::vector<float> lse;

  explicit Results(const Case<T>& in)
      : y(nan_values<T>(in.dy.size())),
        dqkv(nan_values<T>(in.qkv.size())),
        lse(nan_values<float>(static_cast<size_t>(in.shape.N * in.shape.heads * in.shape.T))) {}

  void expect_near(const AttentionShape& shape, const Expected& e, double limit) const {
    EXPECT_LE(max_relative_error(y, e.y), limit);
    EXPECT_LE(max_relative_error(lse, e.lse), limit);
    for (int64_t part = 0; part < 3; ++part) {
      if (part < 2 && shape.T == 1) continue;  // zero, but for rounding
      EXPECT_LE(max_relative_error(part_of(shape, dqkv, part), part_of(shape, e.dqkv, part)), limit) << "part " << part;
    }
  }
};

template <class T>
Results<T> on_cuda(const Case<T>& in) {
  Results<T> out(in);
  const DeviceArray<T> qkv(in.qkv), dy(in.dy);
  DeviceArray<T> y(out.y.size()), dqkv(out.dqkv.size());
  DeviceArray<float> lse(out.lse.size());
  cuda::attention(cuda_stream(), in.shape, qkv.data(), y.data(), lse.data());
  cuda::attention_grad(cuda_stream(), in.shape, qkv.data(), y.data(), lse.data(), dy.data(), dqkv.data());
  out.y = y.host();
  out.lse = lse.host();
  out.dqkv = dqkv.host();
  return out;
}

// bf16: p, ds and y are rounded to 8 bits between the products.
template <class T>
inline constexpr double kLimit = std::is_same_v<T, bf16> ? 2e-2 : 1e-5;

inline std::string text(const AttentionShape& s) {
  return concat_text("N ", s.N, " T ", s.T, " C ", s.C, " heads ", s.heads);
}

template <class T>
void expect_cuda_matches(std::initializer_list<AttentionShape> shapes) {
  for (const AttentionShape& shape : shapes) {
    SCOPED_TRACE(text(shape));
    const Case<T> in(shape);
    const Expected expected = expected_results(in);
    for_each_schedule([&] { on_cuda(in).expect_near(shape, expected, kLimit<T>); });
  }
}

}  // namespace depthstill::attention_test
