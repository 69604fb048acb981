// The tape: accumulation over shared inputs, in-place gradients, several outputs, and what it must refuse.
#include "engine/autograd.h"

#include <gtest/gtest.h>

#include "engine/allocator.h"
#include "engine/ops.h"

namespace depthstill {
namespace {

Tensor vec(std::vector<float> values) { return tensor<float>({static_cast<int64_t>(values.size())}, values); }

// y = k * x with a gradient function that works in place on dy.
Tensor scaled_in_place(const Tensor& x, float k) {
  auto values = to_vector<float>(x);
  for (float& v : values) v *= k;
  return record("scaled", {x}, vec(values), [k](const Tensor& dy) -> Gradients {
    const Tensor dx = writable(dy);
    for (int64_t i = 0; i < dx.numel(); ++i) dx.data<float>()[i] *= k;
    return {dx};
  });
}

TEST(Autograd, SumsTheGradientsOfASharedInput) {
  Tensor x = vec({1, 2});
  x.set_requires_grad();
  const Tensor y = add(scaled_in_place(x, 3), add(x, x));
  backward(y, vec({1, 10}));
  EXPECT_EQ(to_vector<float>(x.grad()), (std::vector<float>{5, 50}));
}

TEST(Autograd, InPlaceGradientDoesNotReachTheOtherBranch) {
  Tensor a = vec({1}), b = vec({1});
  a.set_requires_grad();
  b.set_requires_grad();
  // add hands the same gradient to both inputs; one of them multiplies it in place.
  backward(add(scaled_in_place(a, 7), scaled_in_place(b, 11)), vec({1}));
  EXPECT_EQ(item(a.grad()), 7);
  EXPECT_EQ(item(b.grad()), 11);
}

TEST(Autograd, AccumulatesOverCallsUntilCleared) {
  Tensor x = vec({1});
  x.set_requires_grad();
  for (int i = 0; i < 2; ++i) backward(scaled_in_place(x, 2));
  EXPECT_EQ(item(x.grad()), 4);
  x.clear_grad();
  EXPECT_FALSE(x.grad().defined());
}

TEST(Autograd, PassesUndefinedGradientsOfUnusedOutputs) {
  Tensor x = vec({2});
  x.set_requires_grad();
  const auto ys = record("two", {x}, std::vector<Tensor>{vec({1}), vec({2})}, [](const Gradients& dys) -> Gradients {
    EXPECT_FALSE(dys[0].defined());
    return {dys[1]};
  });
  backward(ys[1]);
  EXPECT_EQ(item(x.grad()), 1);
}

// y = x with slots for dy, dz and sums; their gradients end up one after another in that of x.
Tensor with_slots(const Tensor& x, Activation act, bool wants_sums) {
  return record_activated("slots", {x}, vec({0, 0, 0}), act, wants_sums, [](const Gradients& dys) -> Gradients {
    EXPECT_EQ(dys.size(), 3u);
    std::vector<float> values;
    for (const Tensor& dy : dys) values.push_back(dy.defined() ? to_vector<float>(dy)[0] : -1.0f);
    return {vec(values)};
  });
}

// Sends `gradients` to its inputs.
Tensor sends(std::vector<Tensor> inputs, Gradients gradients) {
  return record("sends", std::move(inputs), vec({0}), [gradients](const Tensor&) { return gradients; });
}

TEST(Autograd, GradientsBelowAnActivationHaveSlotsOfTheirOwn) {
  Tensor x = vec({1, 2, 3});
  x.set_requires_grad();
  Tensor y = with_slots(x, Activation::kRelu6, true);
  ActivationBelow below = activation_below(y);
  EXPECT_EQ(below.kind, Activation::kRelu6);
  EXPECT_FALSE(below.dz.defined());
  const Tensor a = sends({below.dz, below.sums}, {vec({2, 0, 0}), vec({10})});
  const Tensor b = sends({y}, {vec({5, 0, 0})});
  const Tensor c = sends({below.dz, below.sums}, {vec({4, 0, 0}), vec({30})});
  below = {};
  backward(add(a, add(b, c)), vec({1}));
  EXPECT_EQ(to_vector<float>(x.grad()), (std::vector<float>{5, 6, 40}));

  x.clear_grad();
  y = with_slots(x, Activation::kRelu, false);
  below = activation_below(y);
  EXPECT_FALSE(below.sums.requires_grad()) << "not wanted";
  backward(sends({below.dz, below.sums}, {vec({7, 0, 0}), Tensor()}), vec({1}));
  EXPECT_EQ(to_vector<float>(x.grad()), (std::vector<float>{-1, 7, -1}));
}

TEST(Autograd, ASecondGradientHasASlotOfItsOwnIfTheOpTakesTwo) {
  Tensor x = vec({1, 2, 3});
  x.set_requires_grad();
  Gradients arrived;
  const Tensor y = record_activated(
      "two", {x}, vec({0}), Activation::kRelu, false,
      [&](const Gradients& dys) -> Gradients {
        arrived = dys;
        return {Tensor()};
      },
      true);
  const auto expect = [&](float dy, float dz, float second) {
    ASSERT_EQ(arrived.size(), 4u);
    EXPECT_EQ(to_vector<float>(arrived[0]), std::vector<float>{dy});
    EXPECT_EQ(to_vector<float>(arrived[1]), std::vector<float>{dz});
    EXPECT_EQ(to_vector<float>(arrived[3]), std::vector<float>{second});
  };
  const Tensor a = sends({y}, {vec({1})}), b = sends({activation_below(y).dz}, {vec({2})});
  const Tensor c = sends({y}, {vec({4})}), d = sends({y}, {vec({8})});
  backward(add(add(a, b), add(c, d)), vec({1}));
  expect(8, 2, 4 + 1);  // the last op comes first
}

TEST(Autograd, AnActivationWantsDzUnlessADyWaits) {
  Tensor x = vec({1, 2, 3});
  x.set_requires_grad();
  EXPECT_FALSE(activation_below(x).wants_dz());
  const Tensor y = with_slots(x, Activation::kRelu, false);
  const auto asks = [&](bool expected) {
    return record("asks", {y}, vec({0}), [=, below = activation_below(y)](const Tensor&) -> Gradients {
      EXPECT_EQ(below.wants_dz(), expected);
      return {Tensor()};
    });
  };
  const Tensor late = asks(false), dy = sends({y}, {vec({5, 0, 0})}), early = asks(true);
  const ActivationBelow below = activation_below(y);
  const Tensor too_late = record("again", {y, below.dz}, vec({0}), [below](const Tensor&) -> Gradients {
    EXPECT_TRUE(below.wants_dz());
    return {Tensor(), vec({0, 0, 0})};
  });
  backward(add(add(late, dy), early), vec({1}));
  EXPECT_EQ(to_vector<float>(x.grad()), (std::vector<float>{5, -1, -1}));
  EXPECT_THROW(backward(too_late, vec({1})), Error) << "the tape was used";
}

TEST(Autograd, OnlyActivationsOnTheTapeOfferSlots) {
  Tensor x = vec({1, 2, 3});
  EXPECT_EQ(activation_below(with_slots(x, Activation::kRelu, true)).kind, Activation::kNone) << "nothing is recorded";
  x.set_requires_grad();
  EXPECT_EQ(activation_below(x).kind, Activation::kNone);
  EXPECT_EQ(activation_below(scaled_in_place(x, 2)).kind, Activation::kNone);
  EXPECT_EQ(activation_below(with_slots(x, Activation::kNone, true)).kind, Activation::kNone);
  EXPECT_EQ(activation_below(with_slots(x, Activation::kRelu, true).detach()).kind, Activation::kNone);
}

TEST(Autograd, FreesSavedTensorsAsItGoes) {
  const size_t before = memory_stats(Device::kCpu).in_use;
  Tensor x = vec({1});
  x.set_requires_grad();
  Tensor y = scaled_in_place(x, 2);
  for (int i = 0; i < 50; ++i) y = scaled_in_place(y, 1);
  backward(y);
  y = Tensor();
  x = Tensor();
  EXPECT_EQ(memory_stats(Device::kCpu).in_use, before);
}

TEST(Autograd, RecordsNothingUnderNoGrad) {
  Tensor x = vec({1});
  x.set_requires_grad();
  const NoGrad no_grad;
  EXPECT_FALSE(scaled_in_place(x, 2).requires_grad());
}

TEST(Autograd, RefusesASecondBackward) {
  Tensor x = vec({1});
  x.set_requires_grad();
  const Tensor y = scaled_in_place(x, 2);
  backward(y);
  EXPECT_THROW(backward(y), Error);
  EXPECT_THROW(backward(x.detach()), Error);
}

TEST(Autograd, SurvivesALongChain) {
  Tensor x = vec({1});
  x.set_requires_grad();
  Tensor y = x;
  for (int i = 0; i < 20000; ++i) y = scaled_in_place(y, 1);
  backward(y);
  EXPECT_EQ(item(x.grad()), 1);
}

}  // namespace
}  // namespace depthstill
