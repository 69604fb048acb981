#include "engine/ops_loss.h"
#include "tests/ops/loss_oracle.h"

namespace depthstill {
namespace {

using namespace test;

using Loss = Tensor (*)(const Tensor&, const Tensor&, const DepthLossOptions&);

TEST(DepthLoss, MatchesPyTorch) {
  struct Row {
    const char* name;
    Loss loss;
    const char* target;
    DepthLossOptions options;
  };
  for (const Row& row :
       {Row{"si", si_loss, "depth/sparse", {true, 0}}, Row{"mse", mse_loss, "depth/target", {false, 0}},
        Row{"l1", l1_loss, "depth/target", {true, 3}}}) {
    SCOPED_TRACE(row.name);
    Tensor pred = oracle_tensor("depth/pred");
    pred.set_requires_grad();
    const Tensor loss = row.loss(pred, oracle_tensor(row.target), row.options);
    backward(loss);
    const std::string key = std::string("depth/") + row.name;
    EXPECT_LE(relative_error(values_of(loss), oracle_values(key + "/loss")), 1e-6);
    EXPECT_LE(relative_error(values_of(pred.grad()), oracle_values(key + "/dpred")), 2e-6);
  }
}

TEST(DepthLoss, Gradients) {
  std::vector<float> depths = random_values(2 * 5 * 7, 1, 2.0f, 9.0f);
  for (size_t i = 0; i < depths.size(); i += 4) depths[i] = 0.0f;
  const Tensor target = tensor<float>({2, 5, 7}, depths);
  const std::vector<Tensor> inputs = {random_tensor({2, 5, 7}, 2, 1.0f, 10.0f)};
  for (const Loss loss : {si_loss, mse_loss, l1_loss}) {
    for (const int64_t first_row : {0, 2}) {
      const Op op = [&](const std::vector<Tensor>& in) {
        return loss(in[0], to_device(target, in[0].device()), {true, first_row});
      };
      expect_gradients(op, inputs, {}, {2e-3f, 5e-3});
      expect_same_on_devices(op, inputs, {}, 1e-5);
    }
  }
}

TEST(DepthLoss, SaysWhatItNeeds) {
  const Tensor x = random_tensor({2, 5, 7}, 1, 1.0f, 2.0f);
  for (const Loss loss : {si_loss, mse_loss, l1_loss}) {
    EXPECT_THROW(loss(x, random_tensor({2, 7, 5}, 1), {}), Error);
    EXPECT_THROW(loss(to_bf16(x), x, {}), Error);
    EXPECT_THROW(loss(x, x, {.first_row = -1}), Error);
  }
}

}  // namespace
}  // namespace depthstill
