#include "kernels/embed_tokens.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

template <class T>
class EmbedTokensKernel : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(EmbedTokensKernel, Types);

// Channels around the vector widths; more elements than one round of the emulator's grid.
const TokenShape kShapes[] = {{1, 1, 1}, {2, 3, 5}, {3, 7, 8}, {1, 4, 24}, {2, 6, 17}, {5, 40, 64}};

TYPED_TEST(EmbedTokensKernel, MatchesTheFormulas) {
  using T = TypeParam;
  for (const TokenShape& s : kShapes) {
    SCOPED_TRACE(::testing::Message() << s.N << "x" << s.tokens << "x" << s.C);
    const int64_t rows = 1 + s.tokens;
    const auto patches = random_values<T>(static_cast<size_t>(s.N * s.tokens * s.C), 1);
    const auto cls = random_values<float>(static_cast<size_t>(s.C), 2, 0.5f, 1.5f);
    const auto pos = random_values<float>(static_cast<size_t>(rows * s.C), 3, -2.0f, 1.0f);
    const auto dy = random_values<T>(static_cast<size_t>(s.N * rows * s.C), 4, -1.0f, 2.0f);
    std::vector<double> y(dy.size()), dpatches(patches.size()), dcls(cls.size()), dpos(pos.size());
    for (int64_t i = 0; i < s.N * rows * s.C; ++i) {
      const int64_t c = i % s.C, t = i / s.C % rows, n = i / s.C / rows, patch = ((n * s.tokens) + t - 1) * s.C + c;
      const double token = t == 0 ? to_double(cls[size_t(c)]) : to_double(patches[size_t(patch)]);
      y[size_t(i)] = token + to_double(pos[size_t(t * s.C + c)]);
      dpos[size_t(t * s.C + c)] += to_double(dy[size_t(i)]);
      (t == 0 ? dcls[size_t(c)] : dpatches[size_t(patch)]) += to_double(dy[size_t(i)]);
    }

    auto found_y = nan_values<T>(y.size()), found_dpatches = nan_values<T>(patches.size());
    auto found_dcls = nan_values<float>(cls.size()), found_dpos = nan_values<float>(pos.size());
    cpu::embed_tokens(cpu_stream(), s, patches.data(), cls.data(), pos.data(), found_y.data());
    cpu::embed_tokens_grad(cpu_stream(), s, dy.data(), found_dpatches.data(), found_dcls.data(), found_dpos.data());
    EXPECT_LE(max_relative_error(found_y, y), tolerance<T>());
    EXPECT_EQ(max_relative_error(found_dpatches, dpatches), 0.0);
    EXPECT_LE(max_relative_error(found_dcls, dcls), tolerance<float>(s.N));
    EXPECT_LE(max_relative_error(found_dpos, dpos), tolerance<float>(s.N));
    found_dcls = nan_values<float>(cls.size());
    found_dpos = nan_values<float>(pos.size());
    cpu::embed_tokens_grad(cpu_stream(), s, dy.data(), static_cast<T*>(nullptr), found_dcls.data(), found_dpos.data());
    EXPECT_LE(max_relative_error(found_dpos, dpos), tolerance<float>(s.N));

    for_each_schedule([&] {
      const DeviceArray<T> d_patches(patches), d_dy(dy);
      const DeviceArray<float> d_cls(cls), d_pos(pos);
      DeviceArray<T> d_y(y.size()), d_dpatches(patches.size()), d_only(patches.size());
      DeviceArray<float> d_dcls(cls.size()), d_dpos(pos.size());
      cuda::embed_tokens(cuda_stream(), s, d_patches.data(), d_cls.data(), d_pos.data(), d_y.data());
      cuda::embed_tokens_grad(cuda_stream(), s, d_dy.data(), d_dpatches.data(), d_dcls.data(), d_dpos.data());
      cuda::embed_tokens_grad(cuda_stream(), s, d_dy.data(), d_only.data(), nullptr, nullptr);
      EXPECT_LE(max_relative_error(d_y.host(), y), tolerance<T>());
      EXPECT_EQ(max_relative_error(d_dpatches.host(), dpatches), 0.0);
      EXPECT_EQ(max_relative_error(d_only.host(), dpatches), 0.0);
      EXPECT_LE(max_relative_error(d_dcls.host(), dcls), tolerance<float>(s.N));
      EXPECT_LE(max_relative_error(d_dpos.host(), dpos), tolerance<float>(s.N));
    });
  }
}

}  // namespace
}  // namespace depthstill
