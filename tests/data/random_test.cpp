#include "engine/random.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace depthstill {
namespace {

using Counter = std::array<uint32_t, 4>;
using Key = std::array<uint32_t, 2>;

// The published known-answer vectors of Philox4x32-10 (Random123, kat_vectors).
static_assert(philox4x32(Counter{0, 0, 0, 0}, Key{0, 0}) == Counter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
static_assert(philox4x32(Counter{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, Key{0xffffffff, 0xffffffff}) ==
              Counter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
static_assert(philox4x32(Counter{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, Key{0xa4093822, 0x299f31d0}) ==
              Counter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});

TEST(random, words_are_the_blocks_of_the_stream) {
  const uint64_t seed = 0x299f31d0a4093822u, stream = 0x0370734413198a2eu, block = 0x85a308d3243f6a88u >> 2;
  Philox random(seed, stream, block * 4);
  const Counter expected =
      philox4x32({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), 0x13198a2e, 0x03707344},
                 {0xa4093822, 0x299f31d0});
  for (const uint32_t word : expected) EXPECT_EQ(random.bits(), word);
}

TEST(random, resumes_at_any_position) {
  Philox all(7, 3);
  std::vector<uint32_t> words;
  for (int i = 0; i < 37; ++i) words.push_back(all.bits());
  for (size_t at = 0; at < words.size(); ++at) {
    Philox resumed(7, 3, at);
    EXPECT_EQ(resumed.bits(), words[at]);
    EXPECT_EQ(resumed.position(), at + 1);
  }
}

TEST(random, streams_and_seeds_differ) {
  EXPECT_NE(Philox(1, 0).bits(), Philox(2, 0).bits());
  EXPECT_NE(Philox(1, 0).bits(), Philox(1, 1).bits());
  EXPECT_NE(stream_id(RandomUse::kAugment, 1, 2), stream_id(RandomUse::kAugment, 2, 1));
  EXPECT_NE(stream_id(RandomUse::kAugment, 1, 2), stream_id(RandomUse::kShuffle, 1, 2));
  EXPECT_THROW(stream_id(RandomUse::kAugment, 1 << 24, 0), std::runtime_error);
}

TEST(random, moments) {
  Philox random(99);
  constexpr int n = 200000;
  double sum = 0, sum2 = 0, normal = 0, normal2 = 0, low = 1, high = 0;
  for (int i = 0; i < n; ++i) {
    const double u = random.uniform();
    low = std::min(low, u);
    high = std::max(high, u);
    sum += u;
    sum2 += u * u;
    const double z = random.normal();
    normal += z;
    normal2 += z * z;
  }
  const double error = 5.0 / std::sqrt(static_cast<double>(n));  // five standard deviations of a unit variable
  EXPECT_NEAR(sum / n, 0.5, 0.29 * error);
  EXPECT_NEAR(sum2 / n, 1.0 / 3, 0.3 * error);
  EXPECT_NEAR(normal / n, 0, error);
  EXPECT_NEAR(normal2 / n, 1, 1.42 * error);
  EXPECT_GE(low, 0);
  EXPECT_LT(high, 1);
}

TEST(random, below_is_uniform_and_in_range) {
  Philox random(5);
  std::vector<int> counts(7);
  for (int i = 0; i < 70000; ++i) ++counts.at(random.below(7));
  for (const int count : counts) EXPECT_NEAR(count, 10000, 470);
  EXPECT_EQ(random.below(1), 0u);
  EXPECT_THROW(random.below(0), std::runtime_error);
}

TEST(random, permutations) {
  for (const int64_t n : {0, 1, 2, 17, 1000}) {
    std::vector<int64_t> order = Philox(3, static_cast<uint64_t>(n)).permutation(n);
    EXPECT_TRUE(n < 1000 || !std::is_sorted(order.begin(), order.end()));
    std::sort(order.begin(), order.end());
    for (int64_t i = 0; i < n; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
  }
  EXPECT_NE(Philox(1).permutation(50), Philox(2).permutation(50));
}

}  // namespace
}  // namespace depthstill
