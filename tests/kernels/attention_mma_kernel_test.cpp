// Attention on tensor cores: bf16 heads of 64 channels.
#include <cmath>
#include <limits>

#include "tests/kernels/attention_reference.h"

namespace depthstill {
namespace {

using namespace attention_test;

// Tokens around a warp's 16 rows, a tile of 64 and several of them; heads and images that share blocks with none.
TEST(AttentionMmaKernel, MatchesTheFormulas) {
  expect_cuda_matches<bf16>({{1, 1, 64, 1}, {2, 15, 128, 2}, {1, 64, 64, 1}, {1, 81, 192, 3}, {1, 150, 64, 1}});
}

// Scores of several hundred, whose exponentials overflow, in tiles of which the later ones have larger ones.
TEST(AttentionMmaKernel, LargeScoresDoNotOverflow) {
  Case<bf16> in({1, 130, 64, 1}, 12.0f);
  for (int64_t j = 0; j < 64; ++j) {
    for (int64_t c = 0; c < 64; ++c) {
      bf16& k = in.qkv[in.qkv_index(0, j, 1, 0, c)];
      k = bf16(0.1f * static_cast<float>(k));
    }
  }
  const Expected expected = expected_results(in);
  ASSERT_GT(*std::max_element(expected.lse.begin(), expected.lse.end()), 200);
  on_cuda(in).expect_near(in.shape, expected, 3e-2);
}

// A NaN in a key reaches every query of its head, and no other head.
TEST(AttentionMmaKernel, NaNStaysInItsHead) {
  Case<bf16> in({2, 40, 128, 2});
  in.qkv[in.qkv_index(0, 39, 1, 1, 3)] = bf16(std::numeric_limits<float>::quiet_NaN());
  const Results<bf16> out = on_cuda(in);
  for (int64_t n = 0; n < 2; ++n) {
    for (int64_t h = 0; h < 2; ++h) {
      for (int64_t i = 0; i < 40; ++i) {
        for (int64_t c = 0; c < 64; ++c) {
          ASSERT_EQ(std::isnan(to_double(out.y[in.y_index(n, i, h, c)])), n == 0 && h == 1);
          ASSERT_EQ(std::isnan(to_double(out.dqkv[in.qkv_index(n, i, 0, h, c)])), n == 0 && h == 1);
        }
      }
    }
  }
}

TEST(AttentionMmaKernel, RefusesMoreTokensThanItCounts) {
  const AttentionShape shape{1, (int64_t{1} << 31) / (3 * 64), 64, 1};
  EXPECT_THROW(cuda::attention<bf16>(cuda_stream(), shape, nullptr, nullptr, nullptr), Error);
}

}  // namespace
}  // namespace depthstill
