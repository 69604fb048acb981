// Attention against sums in double, for every CPU path that this processor can run and for the CUDA kernels.
#include <algorithm>
#include <functional>

#include "kernels/attention/attention_tiles.h"
#include "kernels/core/parallel.h"
#include "tests/kernels/attention_reference.h"

namespace depthstill {
namespace {

using namespace attention_test;

template <class T>
struct Path {
  std::string name;
  std::function<void(const Case<T>&, Results<T>&)> run;
};

template <class T>
Path<T> tiled(const cpu::TileKernels* kernels) {
  return {std::string("tiles, ") + kernels->name, [kernels](const Case<T>& in, Results<T>& out) {
            cpu::tiled_attention(*kernels, cpu_stream(), in.shape, in.qkv.data(), out.y.data(), out.lse.data());
            cpu::tiled_attention_grad(*kernels, cpu_stream(), in.shape, in.qkv.data(), out.y.data(), out.lse.data(),
                                      in.dy.data(), out.dqkv.data());
          }};
}

template <class T>
std::vector<Path<T>> cpu_paths() {
  std::vector<Path<T>> paths = {{"plain", [](const Case<T>& in, Results<T>& out) {
                                   cpu::plain_attention(cpu_stream(), in.shape, in.qkv.data(), out.y.data(),
                                                        out.lse.data());
                                   cpu::plain_attention_grad(cpu_stream(), in.shape, in.qkv.data(), out.y.data(),
                                                             out.lse.data(), in.dy.data(), out.dqkv.data());
                                 }}};
  std::vector<const cpu::TileKernels*> kernels = {cpu::avx2_kernels<T>(), cpu::avx512_kernels<T>(),
                                                  cpu::amx_kernels<T>()};
  if constexpr (std::is_same_v<T, bf16>) {
    kernels.push_back(cpu::avx512_bf16_kernels());
    kernels.push_back(cpu::avx512_bf16_stand_in());
  }
  for (const cpu::TileKernels* k : kernels) {
    if (k) paths.push_back(tiled<T>(k));
  }
  return paths;
}

template <class T>
class AttentionKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(AttentionKernel, Types);

TYPED_TEST(AttentionKernel, EveryCpuPathMatchesTheFormulas) {
  // {N, T, C, heads}
  for (const AttentionShape& shape :
       {AttentionShape{1, 1, 4, 1}, AttentionShape{2, 7, 12, 3}, AttentionShape{2, 33, 128, 2},
        AttentionShape{1, 130, 80, 2}, AttentionShape{2, 130, 64, 1}, AttentionShape{1, 300, 33, 1},
        AttentionShape{1, 65, 256, 2}, AttentionShape{2, 241, 16, 1}, AttentionShape{1, 5, 2, 2},
        AttentionShape{13, 17, 24, 1}}) {
    SCOPED_TRACE(text(shape));
    const Case<TypeParam> in(shape);
    const Expected expected = expected_results(in);
    for (const auto& path : cpu_paths<TypeParam>()) {
      SCOPED_TRACE(path.name);
      Results<TypeParam> out(in);
      path.run(in, out);
      out.expect_near(shape, expected, kLimit<TypeParam>);
    }
  }
}

TYPED_TEST(AttentionKernel, CudaMatchesTheFormulas) {
  expect_cuda_matches<TypeParam>({{2, 7, 12, 3}, {1, 70, 5, 1}, {1, 130, 40, 1}, {1, 66, 68, 1}, {1, 1, 4, 1}});
}

// Scores of several hundred, whose exponentials overflow. Their own rounding, some 1e-7 of them, is the error.
TYPED_TEST(AttentionKernel, LargeScoresDoNotOverflow) {
  const Case<TypeParam> in({1, 50, 32, 1}, 16.0f);
  const Expected expected = expected_results(in);
  ASSERT_GT(*std::max_element(expected.lse.begin(), expected.lse.end()), 200);
  const double limit = std::is_same_v<TypeParam, bf16> ? 3e-2 : 3e-4;
  for (const auto& path : cpu_paths<TypeParam>()) {
    SCOPED_TRACE(path.name);
    Results<TypeParam> out(in);
    path.run(in, out);
    out.expect_near(in.shape, expected, limit);
  }
  on_cuda(in).expect_near(in.shape, expected, limit);
}

// A NaN in a value reaches that channel of its head, in all queries, and no other head.
TYPED_TEST(AttentionKernel, NaNStaysInItsHead) {
  Case<TypeParam> in({2, 40, 24, 2});
  in.qkv[in.qkv_index(0, 39, 1, 1, 3)] = static_cast<TypeParam>(std::numeric_limits<float>::quiet_NaN());
  const auto expect_nan = [&](const Results<TypeParam>& out) {
    for (int64_t n = 0; n < 2; ++n) {
      for (int64_t h = 0; h < 2; ++h) {
        for (int64_t i = 0; i < 40; ++i) {
          for (int64_t c = 0; c < 12; ++c) {
            ASSERT_EQ(std::isnan(to_double(out.y[in.y_index(n, i, h, c)])), n == 0 && h == 1);
            ASSERT_EQ(std::isnan(to_double(out.dqkv[in.qkv_index(n, i, 0, h, c)])), n == 0 && h == 1);
          }
        }
      }
    }
  };
  for (const auto& path : cpu_paths<TypeParam>()) {
    SCOPED_TRACE(path.name);
    Results<TypeParam> out(in);
    path.run(in, out);
    expect_nan(out);
  }
  expect_nan(on_cuda(in));
}

TYPED_TEST(AttentionKernel, DoesNotDependOnTheNumberOfThreads) {
  const Case<TypeParam> in({1, 400, 120, 3});
  const int threads = num_threads();
  std::vector<Results<TypeParam>> results;
  for (const int count : {1, 2, 3}) {
    set_num_threads(count);
    results.emplace_back(in);
    cpu::attention(cpu_stream(), in.shape, in.qkv.data(), results.back().y.data(), results.back().lse.data());
    cpu::attention_grad(cpu_stream(), in.shape, in.qkv.data(), results.back().y.data(), results.back().lse.data(),
                        in.dy.data(), results.back().dqkv.data());
  }
  set_num_threads(threads);
  for (const auto& other : results) {
    EXPECT_EQ(std::memcmp(results[0].y.data(), other.y.data(), other.y.size() * sizeof(TypeParam)), 0);
    EXPECT_EQ(std::memcmp(results[0].dqkv.data(), other.dqkv.data(), other.dqkv.size() * sizeof(TypeParam)), 0);
    EXPECT_EQ(results[0].lse, other.lse);
  }
}

}  // namespace
}  // namespace depthstill
