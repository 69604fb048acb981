#include <array>

#include "kernels/adamw.h"
#include "tests/kernels/kernel_test.h"

namespace depthstill {
namespace {

using namespace kernel_test;

// Tensors shorter and longer than a chunk, and unaligned ones.
std::vector<int64_t> sizes() {
  std::vector<int64_t> n = {1, 3, 4096, 8197, 4099, 16};
  for (int64_t i = 0; i < 14; ++i) n.push_back(1 + i % 7);
  return n;
}

// All tensors in one array each for grad, value, m, v, one after the other.
struct Arrays {
  std::vector<float> grad, value, m, v;

  explicit Arrays(size_t n)
      : grad(random_values<float>(n, 1, -3.0f, 5.0f)),
        value(random_values<float>(n, 2)),
        m(random_values<float>(n, 3, -0.1f, 0.1f)),
        v(random_values<float>(n, 4, 0.01f, 0.5f)) {}
};

// The factor of the tensor `index`; it is exact in fp32.
float lr_factor(size_t index) { return index % 3 == 0 ? 1.0f : index % 3 == 1 ? 0.125f : 4.0f; }

std::vector<AdamWSlot> slots_in(const float* grad, float* value, float* m, float* v) {
  std::vector<AdamWSlot> slots;
  int64_t at = 0;
  for (const int64_t n : sizes()) {
    slots.push_back({n, grad + at, value + at, m + at, v + at, lr_factor(slots.size())});
    at += n;
  }
  return slots;
}

size_t total() {
  int64_t n = 0;
  for (const int64_t size : sizes()) n += size;
  return static_cast<size_t>(n);
}

constexpr AdamWParams kParams{0.9f, 0.97f, 1e-3f, 0.2f};
constexpr AdamWState kBefore{4, 0.03f};  // the fifth update

// The update in double.
struct Reference {
  std::vector<double> value, m, v;
  double norm = 0;

  Reference(const Arrays& a, double unscale, double max_norm) {
    const double beta1 = to_double(kParams.beta1), beta2 = to_double(kParams.beta2);
    for (const float g : a.grad) norm += to_double(g) * to_double(g);
    norm = unscale * std::sqrt(norm);
    const double scale = unscale * (max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0);
    std::vector<double> rates;  // learning rate of each element
    for (size_t s = 0; s < sizes().size(); ++s)
      rates.insert(rates.end(), static_cast<size_t>(sizes()[s]), to_double(kBefore.lr) * to_double(lr_factor(s)));
    for (size_t i = 0; i < a.grad.size(); ++i) {
      const double lr = rates[i];
      const double g = scale * to_double(a.grad[i]);
      m.push_back(beta1 * to_double(a.m[i]) + (1 - beta1) * g);
      v.push_back(beta2 * to_double(a.v[i]) + (1 - beta2) * g * g);
      const double root = std::sqrt(v[i] / (1 - std::pow(beta2, 5)));
      value.push_back(to_double(a.value[i]) * (1 - lr * to_double(kParams.weight_decay)) -
                      lr / (1 - std::pow(beta1, 5)) * m[i] / (root + to_double(kParams.eps)));
    }
  }
};

// A step of the CPU's kernels.
struct OnHost {
  Arrays a;
  AdamWState state;
  double sum = NAN;
  int32_t broken = 0;

  OnHost(const Arrays& before, const AdamWState& state_before, float unscale, float max_norm)
      : a(before), state(state_before) {
    const auto slots = slots_in(a.grad.data(), a.value.data(), a.m.data(), a.v.data());
    cpu::sum_of_squares(cpu_stream(), slots, &sum);
    cpu::adamw_prepare(cpu_stream(), kParams, unscale, max_norm, &sum, &state);
    cpu::adamw(cpu_stream(), slots, kParams, &state, &broken);
  }
};

// The same step of the CUDA kernels.
struct OnDevice {
  DeviceArray<float> grad, value, m, v;
  DeviceArray<double> sum;
  DeviceArray<AdamWState> state;
  DeviceArray<int32_t> broken;

  OnDevice(const Arrays& before, const AdamWState& state_before, float unscale, float max_norm)
      : grad(before.grad),
        value(before.value),
        m(before.m),
        v(before.v),
        sum(1),
        state(std::vector<AdamWState>{state_before}),
        broken(std::vector<int32_t>{0}) {
    const auto slots = slots_in(grad.data(), value.data(), m.data(), v.data());
    cuda::sum_of_squares(cuda_stream(), slots, sum.data());
    cuda::adamw_prepare(cuda_stream(), kParams, unscale, max_norm, sum.data(), state.data());
    cuda::adamw(cuda_stream(), slots, kParams, state.data(), broken.data());
  }
};

struct Row {
  float unscale, max_norm;
};
constexpr Row kRows[] = {{1.0f, 35.0f}, {0.25f, 1e9f}, {1.0f, 0.0f}};

TEST(AdamwKernel, UpdatesWithClipping) {
  for (const Row& row : kRows) {
    SCOPED_TRACE(::testing::Message() << "unscale " << row.unscale << ", max norm " << row.max_norm);
    const Arrays before(total());
    const Reference expected(before, to_double(row.unscale), to_double(row.max_norm));
    // g is rounded before it is squared and v before its root is taken.
    const double limit = 16 * tolerance<float>();

    const OnHost host(before, kBefore, row.unscale, row.max_norm);
    EXPECT_EQ(host.state.step, 5);
    EXPECT_EQ(host.state.finite, 1);
    EXPECT_EQ(host.broken, 0);
    EXPECT_NEAR(to_double(host.state.norm), expected.norm, 1e-6 * expected.norm);
    EXPECT_LE(max_relative_error(host.a.value, expected.value), limit);
    EXPECT_LE(max_relative_error(host.a.m, expected.m), limit);
    EXPECT_LE(max_relative_error(host.a.v, expected.v), limit);

    for_each_schedule([&] {
      const OnDevice device(before, kBefore, row.unscale, row.max_norm);
      EXPECT_EQ(device.state.host()[0].step, 5);
      EXPECT_EQ(device.broken.host()[0], 0);
      EXPECT_NEAR(device.sum.host()[0], host.sum, 1e-12 * host.sum);
      EXPECT_LE(max_relative_error(device.value.host(), expected.value), limit);
      EXPECT_LE(max_relative_error(device.m.host(), expected.m), limit);
      EXPECT_LE(max_relative_error(device.v.host(), expected.v), limit);
    });
  }
}

TEST(AdamwKernel, LeavesEverythingAloneWhenTheNormIsNotFinite) {
  for (const float bad : {NAN, INFINITY}) {
    Arrays before(total());
    before.grad[4097] = bad;
    const OnHost host(before, kBefore, 1.0f, 35.0f);
    EXPECT_EQ(host.state.finite, 0);
    EXPECT_EQ(host.broken, 0);
    EXPECT_EQ(host.state.step, 4);
    EXPECT_EQ(host.a.value, before.value);
    EXPECT_EQ(host.a.m, before.m);

    for_each_schedule([&] {
      const OnDevice device(before, kBefore, 1.0f, 35.0f);
      EXPECT_EQ(device.state.host()[0].finite, 0);
      EXPECT_EQ(device.value.host(), before.value);
      EXPECT_EQ(device.v.host(), before.v);
    });
  }
}

// Gradients are finite; the square of one overflows, a value is about to, or the rate is too high.
TEST(AdamwKernel, NotesAnUpdateThatIsNotFinite) {
  struct Case {
    const char* name;
    void (*spoil)(Arrays&, AdamWState&);
  };
  const Case cases[] = {
      {"second moment", [](Arrays& a, AdamWState&) { a.grad[4097] = 1e21f; }},
      {"value", [](Arrays& a, AdamWState&) { a.value[4] = 3.4e38f, a.m[4] = -3e38f; }},
      {"rate", [](Arrays&, AdamWState& state) { state.lr = 1e38f; }},
      {"last element", [](Arrays& a, AdamWState&) { a.m.back() = INFINITY; }},
  };
  for (const Case& row : cases) {
    SCOPED_TRACE(row.name);
    Arrays before(total());
    AdamWState state_before = kBefore;
    row.spoil(before, state_before);
    const OnHost host(before, state_before, 1.0f, 0.0f);
    EXPECT_EQ(host.state.finite, 1);
    EXPECT_NE(host.broken, 0);
    for_each_schedule([&] { EXPECT_NE(OnDevice(before, state_before, 1.0f, 0.0f).broken.host()[0], 0); });
  }
}

// Copies beside the values: of all elements, of pieces whose copy has another alignment, and of nothing else.
TEST(AdamwKernel, WritesRoundedCopies) {
  constexpr AdamWState kNow{5, 0.03f, 0.5f, 0.1f, 1.2f};
  constexpr int64_t kN = 8195, kFirst[] = {0, 8196};  // the second tensor begins aligned, its copy does not
  const Arrays before(2 * kN + 1);
  const auto run = [&](auto& adamw, Stream stream, auto data, bf16* copies, const AdamWState* state, int32_t* broken) {
    std::vector<AdamWSlot> slots;
    for (const int64_t at : kFirst) {
      slots.push_back({kN, data[0] + at, data[1] + at, data[2] + at, data[3] + at});
      slots.back().rounded = copies + at + (at != 0);
    }
    adamw(stream, slots, kParams, state, broken);
  };
  const auto expect_copies = [&](const std::vector<float>& value, const std::vector<bf16>& copies) {
    for (const int64_t at : kFirst) {
      for (int64_t i = 0; i < kN; ++i) {
        const auto from = static_cast<size_t>(at + i), to = from + (at != 0);
        ASSERT_EQ(copies[to].bits, bf16(value[from]).bits) << at << " + " << i;
      }
    }
    EXPECT_EQ(copies[static_cast<size_t>(kN)].bits, bf16(7.0f).bits);
  };
  const std::vector<bf16> sevens(2 * kN + 2, bf16(7.0f));

  Arrays a = before;
  std::vector<bf16> copies = sevens;
  int32_t broken = 0;
  run(cpu::adamw, cpu_stream(), std::array{a.grad.data(), a.value.data(), a.m.data(), a.v.data()}, copies.data(), &kNow,
      &broken);
  EXPECT_NE(a.value, before.value);
  expect_copies(a.value, copies);

  DeviceArray<float> grad(before.grad), value(before.value), m(before.m), v(before.v);
  DeviceArray<bf16> device_copies(sevens);
  DeviceArray<AdamWState> state(std::vector<AdamWState>{kNow});
  DeviceArray<int32_t> device_broken(std::vector<int32_t>{0});
  run(cuda::adamw, cuda_stream(), std::array{grad.data(), value.data(), m.data(), v.data()}, device_copies.data(),
      state.data(), device_broken.data());
  expect_copies(value.host(), device_copies.host());
}

// More tensors than one launch takes.
TEST(AdamwKernel, TakesManyTensors) {
  constexpr size_t kTensors = 515;
  const Arrays before(kTensors);
  const auto slots_of = [](const float* grad, float* value, float* m, float* v) {
    std::vector<AdamWSlot> slots;
    for (size_t i = 0; i < kTensors; ++i) slots.push_back({1, grad + i, value + i, m + i, v + i, lr_factor(i)});
    return slots;
  };
  Arrays a = before;
  AdamWState state = kBefore;
  double sum = 0;
  int32_t broken = 0;
  const auto slots = slots_of(a.grad.data(), a.value.data(), a.m.data(), a.v.data());
  cpu::sum_of_squares(cpu_stream(), slots, &sum);
  cpu::adamw_prepare(cpu_stream(), kParams, 1.0f, 0.0f, &sum, &state);
  cpu::adamw(cpu_stream(), slots, kParams, &state, &broken);

  DeviceArray<float> grad(before.grad), value(before.value), m(before.m), v(before.v);
  DeviceArray<double> device_sum(1);
  DeviceArray<AdamWState> device_state(std::vector<AdamWState>{kBefore});
  DeviceArray<int32_t> device_broken(std::vector<int32_t>{0});
  const auto device_slots = slots_of(grad.data(), value.data(), m.data(), v.data());
  cuda::sum_of_squares(cuda_stream(), device_slots, device_sum.data());
  cuda::adamw_prepare(cuda_stream(), kParams, 1.0f, 0.0f, device_sum.data(), device_state.data());
  cuda::adamw(cuda_stream(), device_slots, kParams, device_state.data(), device_broken.data());
  EXPECT_NEAR(device_sum.host()[0], sum, 1e-12 * sum);
  const std::vector<double> expected(a.value.begin(), a.value.end());
  EXPECT_LE(max_relative_error(value.host(), expected), 16 * tolerance<float>());
}

}  // namespace
}  // namespace depthstill
