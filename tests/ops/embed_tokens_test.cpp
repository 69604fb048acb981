#include "engine/ops.h"
#include "tests/ops/op_test.h"

namespace depthstill {
namespace {

using namespace test;

const Op kEmbed = [](const std::vector<Tensor>& in) { return embed_tokens(in[0], in[1], in[2]); };

TEST(EmbedTokens, GradientsAndDevices) {
  const std::vector<Tensor> in = {random_tensor({3, 4, 5}, 1), random_tensor({1, 1, 5}, 2),
                                  random_tensor({1, 5, 5}, 3)};
  expect_gradients(kEmbed, in, {}, {0.1f, 1e-4});  // linear, so the step may be large
  expect_same_on_devices(kEmbed, in, {}, 1e-6);
  expect_same_on_devices(kEmbed, {to_bf16(in[0]), in[1], in[2]}, {}, 4e-3);
  const OpResult frozen = evaluate(kEmbed, in, {true, false, false}, Device::kCpu);
  EXPECT_EQ(frozen.gradients[0], evaluate(kEmbed, in, {true, true, true}, Device::kCpu).gradients[0]);
}

TEST(EmbedTokens, RefusesWhatDoesNotFit) {
  const Tensor patches = random_tensor({3, 4, 5}, 1), cls = random_tensor({1, 1, 5}, 2);
  EXPECT_THROW(embed_tokens(patches, cls, random_tensor({1, 4, 5}, 3)), Error);
  EXPECT_THROW(embed_tokens(patches, random_tensor({1, 5}, 2), random_tensor({1, 5, 5}, 3)), Error);
  EXPECT_THROW(embed_tokens(patches, cls, to_bf16(random_tensor({1, 5, 5}, 3))), Error);
  EXPECT_THROW(embed_tokens(random_tensor({4, 5}, 1), cls, random_tensor({1, 5, 5}, 3)), Error);
}

}  // namespace
}  // namespace depthstill
