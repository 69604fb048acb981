// Products of the simulated cuBLASLt through our wrapper, against plain loops over row-major matrices, and what it
// refuses.
#include "kernels/cublaslt/matmul.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/linear.h"
#include "kernels/simt/libraries/simulation.h"
#include "tests/kernels/kernel_test.h"
#include "tests/libraries/candidates.h"

namespace depthstill::cublaslt {
namespace {

using namespace kernel_test;

template <class T>
class Products : public ::testing::Test {};
using Types = ::testing::Types<float, bf16>;
TYPED_TEST_SUITE(Products, Types);

template <class T>
constexpr cudaDataType_t kType = std::is_same_v<T, float> ? CUDA_R_32F : CUDA_R_16BF;

// The algorithms that run, of all that are offered.
template <class F>
int for_each_algorithm(const MatmulShape& shape, const F& run) {
  int ran = 0;
  for (int rank = 0; rank < 8; ++rank) {
    try {
      const Matmul product(shape, rank);
      run(product);
      ++ran;
    } catch (const Error& error) {
      const bool no_more = std::string(error.what()).find("expected more than") != std::string::npos;
      EXPECT_TRUE(no_more || test::did_not_run(error)) << error.what();
    }
  }
  return ran;
}

struct Expected {
  std::vector<double> d, vector;  // the latter where the epilogue writes it
};

template <class T>
Expected expected_product(const MatmulShape& s, const std::vector<T>& a, const std::vector<T>& b,
                          const std::vector<double>& bias) {
  const auto at_a = [&](int64_t i, int64_t k) {
    return to_double(a[static_cast<size_t>(s.a_transposed ? k * s.rows + i : i * s.inner + k)]);
  };
  const auto at_b = [&](int64_t k, int64_t j) {
    return to_double(b[static_cast<size_t>(s.b_transposed ? j * s.inner + k : k * s.columns + j)]);
  };
  Expected result;
  for (int64_t i = 0; i < s.rows; ++i) {
    double row_sum = 0.0;
    for (int64_t k = 0; k < s.inner; ++k) row_sum += at_a(i, k);
    result.vector.push_back(row_sum);
    for (int64_t j = 0; j < s.columns; ++j) {
      double sum = 0.0;
      for (int64_t k = 0; k < s.inner; ++k) sum += at_a(i, k) * at_b(k, j);
      if (s.epilogue == Epilogue::kBias || s.epilogue == Epilogue::kReluBias) sum += bias[static_cast<size_t>(j)];
      result.d.push_back(s.epilogue == Epilogue::kReluBias ? std::max(sum, 0.0) : sum);
    }
  }
  return result;
}

template <class T, class D>
void expect_product(const MatmulShape& s) {
  SCOPED_TRACE(testing::Message() << s.rows << " x " << s.inner << " x " << s.columns << (s.a_transposed ? ", a^T" : "")
                                  << (s.b_transposed ? ", b^T" : "") << ", epilogue " << static_cast<int>(s.epilogue));
  const auto a = random_values<T>(static_cast<size_t>(s.rows * s.inner), 1);
  const auto b = random_values<T>(static_cast<size_t>(s.columns * s.inner), 2);
  const auto bias = random_values<D>(static_cast<size_t>(s.columns), 3, -2.0f, 2.0f);
  std::vector<double> wide_bias;
  for (const D v : bias) wide_bias.push_back(to_double(v));
  const Expected expected = expected_product(s, a, b, wide_bias);
  const DeviceArray<T> a_device(a), b_device(b);
  DeviceArray<char> workspace(size_t{1} << 20);
  const bool writes = s.epilogue == Epilogue::kBiasGradient;
  const int ran = for_each_algorithm(s, [&](const Matmul& product) {
    DeviceArray<D> d(expected.d.size());
    DeviceArray<D> vector = writes ? DeviceArray<D>(expected.vector.size()) : DeviceArray<D>(bias);
    product(cuda_stream(), a_device.data(), b_device.data(), vector.data(), d.data(), workspace.data());
    EXPECT_LE(max_relative_error(d.host(), expected.d), tolerance<D>(s.inner));
    if (writes) {
      EXPECT_LE(max_relative_error(vector.host(), expected.vector), tolerance<D>(s.inner));
    }
  });
  EXPECT_EQ(ran, 3);
}

TYPED_TEST(Products, AreThoseOfPlainLoops) {
  using T = TypeParam;
  for (const bool a_transposed : {false, true}) {
    for (const bool b_transposed : {false, true}) {
      for (const Epilogue epilogue : {Epilogue::kNone, Epilogue::kBias, Epilogue::kReluBias, Epilogue::kBiasGradient}) {
        for (const auto& [rows, columns, inner] :
             {std::array<int64_t, 3>{5, 7, 3}, {33, 40, 17}, {1, 64, 9}, {50, 1, 4}}) {
          MatmulShape shape{.rows = rows, .columns = columns, .inner = inner};
          shape.a_transposed = a_transposed;
          shape.b_transposed = b_transposed;
          shape.epilogue = epilogue;
          shape.type = shape.d_type = kType<T>;
          expect_product<T, T>(shape);
          shape.d_type = CUDA_R_32F;
          expect_product<T, float>(shape);
        }
      }
    }
  }
}

TEST(ProductRefusals, TypesThatDoNotGoTogether) {
  const MatmulShape shape{.rows = 4, .columns = 4, .inner = 4};
  EXPECT_NO_THROW(Matmul{shape});
  MatmulShape narrow = shape;
  narrow.d_type = CUDA_R_16BF;
  EXPECT_THROW(Matmul{narrow}, Error) << "fp32 factors, bf16 result";
  MatmulShape half = shape;
  half.type = half.d_type = CUDA_R_16F;
  EXPECT_THROW(Matmul{half}, Error) << "not simulated";
}

TEST(ProductRefusals, PointersThatAreNotAligned) {
  const Matmul product({.rows = 4, .columns = 8, .inner = 4, .b_transposed = true, .epilogue = Epilogue::kBias});
  const DeviceArray<float> a(random_values<float>(20, 1)), b(random_values<float>(36, 2)),
      bias(random_values<float>(12, 3));
  DeviceArray<float> d(36);
  DeviceArray<char> workspace(product.workspace_bytes() + 16);
  const auto run = [&](const float* from_a, const float* from_b, const float* with, float* to, void* at) {
    product(cuda_stream(), from_a, from_b, with, to, at);
  };
  EXPECT_NO_THROW(run(a.data(), b.data(), bias.data(), d.data(), workspace.data()));
  EXPECT_THROW(run(a.data() + 1, b.data(), bias.data(), d.data(), workspace.data()), Error);
  EXPECT_THROW(run(a.data(), b.data() + 1, bias.data(), d.data(), workspace.data()), Error);
  EXPECT_THROW(run(a.data(), b.data(), bias.data() + 1, d.data(), workspace.data()), Error);
  EXPECT_THROW(run(a.data(), b.data(), bias.data(), d.data() + 1, workspace.data()), Error);
  EXPECT_THROW(run(a.data(), b.data(), bias.data(), d.data(), workspace.data() + 8), Error);
  EXPECT_THROW(run(a.data(), b.data(), nullptr, d.data(), workspace.data()), Error);
  EXPECT_THROW(run(a.data(), b.data(), bias.data(), d.data(), nullptr), Error);
}

TEST(ProductRefusals, Tf32IsRoundedTo) {
  MatmulShape shape{.rows = 16, .columns = 16, .inner = 16, .tf32 = true};
  const auto a = random_values<float>(256, 1), b = random_values<float>(256, 2);
  const std::vector<double> exact = expected_product<float>(shape, a, b, {}).d;
  const DeviceArray<float> a_device(a), b_device(b);
  DeviceArray<char> workspace(size_t{1} << 20);
  for (const bool tf32 : {false, true}) {
    shape.tf32 = tf32;
    const int ran = for_each_algorithm(shape, [&](const Matmul& product) {
      DeviceArray<float> d(256);
      product(cuda_stream(), a_device.data(), b_device.data(), nullptr, d.data(), workspace.data());
      const double error = max_relative_error(d.host(), exact);
      EXPECT_EQ(error > 1e-5, tf32) << error;
      EXPECT_LE(error, 2e-3);
    });
    EXPECT_EQ(ran, 3);
  }
}

// The pointer of a bias is that of the call, however late the stream gets to it.
TEST(ProductRefusals, TheBiasIsThatOfTheCall) {
  const Matmul product({.rows = 2, .columns = 4, .inner = 2, .epilogue = Epilogue::kBias});
  const DeviceArray<float> a(std::vector<float>(4, 0.0f)), b(std::vector<float>(8, 0.0f));
  const DeviceArray<float> one(std::vector<float>(4, 1.0f)), two(std::vector<float>(4, 2.0f));
  DeviceArray<float> first(8), second(8);
  DeviceArray<char> workspace(product.workspace_bytes() + 1);
  const Stream stream = cuda_stream();
  cuda::begin_capture(stream);
  product(stream, a.data(), b.data(), one.data(), first.data(), workspace.data());
  product(stream, a.data(), b.data(), two.data(), second.data(), workspace.data());
  void* graph = cuda::end_capture(stream);
  cuda::launch_graph(graph, stream);
  EXPECT_EQ(first.host(), std::vector<float>(8, 1.0f));
  EXPECT_EQ(second.host(), std::vector<float>(8, 2.0f));
  cuda::destroy_graph(graph);
}

TYPED_TEST(Products, ALinearLayerLeavesOutWhatDoesNotRun) {
  using T = TypeParam;
  const test::WithOptions with(test::strict_options());
  for (const int failures : {0, 1, 2}) {
    const LinearShape s{.rows = 19 + failures, .I = 24, .O = 16};  // one that has no plan yet
    const auto x = random_values<T>(static_cast<size_t>(s.rows * s.I), 1);
    const auto dy = random_values<T>(static_cast<size_t>(s.rows * s.O), 2);
    std::vector<float> weight;
    for (const T w : random_values<T>(static_cast<size_t>(s.I * s.O), 3)) weight.push_back(static_cast<float>(w));
    const std::vector<float> bias(static_cast<size_t>(s.O), 0.75f);
    const MatmulShape forward{
        .rows = s.rows, .columns = s.O, .inner = s.I, .b_transposed = true, .epilogue = Epilogue::kBias};
    const MatmulShape backward{.rows = s.O, .columns = s.I, .inner = s.rows, .a_transposed = true};
    std::vector<T> weight_as_t;
    for (const float w : weight) weight_as_t.push_back(static_cast<T>(w));
    const DeviceArray<T> x_device(x), dy_device(dy);
    const DeviceArray<float> weight_device(weight), bias_device(bias);
    DeviceArray<T> y(dy.size());
    DeviceArray<float> dweight(weight.size()), dbias(static_cast<size_t>(s.O));
    simt::fail_next_executions(failures);
    cuda::linear<T>(cuda_stream(), s, x_device.data(), weight_device.data(), bias_device.data(), y.data());
    simt::fail_next_executions(failures);
    cuda::linear_grad<T>(cuda_stream(), s, x_device.data(), weight_device.data(), dy_device.data(), nullptr,
                         dweight.data(), dbias.data());
    simt::fail_next_executions(0);
    EXPECT_LE(max_relative_error(
                  y.host(), expected_product(forward, x, weight_as_t, std::vector<double>(bias.begin(), bias.end())).d),
              tolerance<T>(s.I));
    const Expected gradient = expected_product(backward, dy, x, {});
    EXPECT_LE(max_relative_error(dweight.host(), gradient.d), tolerance<float>(s.rows));
    EXPECT_LE(max_relative_error(dbias.host(), gradient.vector), tolerance<float>(s.rows));
  }
}

}  // namespace
}  // namespace depthstill::cublaslt
