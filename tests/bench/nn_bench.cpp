// Throughput of the memory-bound kernels at the student's shapes (352 x 704 input, batch 1; tokens: ViT-S at 518 x
// 518), as GB/s of the bytes that must move at least: compare with the machine's copy rate, which the first benchmark
// measures.
#include <benchmark/benchmark.h>

#include <cstring>
#include <string>
#include <vector>

#include "kernels/batch_norm.h"
#include "kernels/depthwise_conv2d.h"
#include "kernels/gelu.h"
#include "kernels/layer_norm.h"
#include "kernels/layer_scale.h"
#include "tests/bench/bench.h"

namespace depthstill {
namespace {

using bench::BenchScratch;
using bench::values;

// Copy of as many bytes as the largest map below has: the practical bound.
void copy(benchmark::State& state) {
  const auto from = values<float>(176 * 352 * 96);
  auto to = from;
  for (auto _ : state) {
    std::memcpy(to.data(), from.data(), from.size() * sizeof(float));
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(2 * from.size() * sizeof(float)));
}
BENCHMARK(copy)->UseRealTime();

enum class Pass { kForward, kDx, kDweight };

template <class T, Pass pass>
void depthwise(benchmark::State& state) {
  const DepthwiseShape shape{1,
                             state.range(0),
                             state.range(1),
                             state.range(2),
                             static_cast<int>(state.range(3)),
                             static_cast<int>(state.range(4)),
                             static_cast<int>(state.range(4)),
                             static_cast<int>(state.range(4))};
  const int64_t inputs = shape.H * shape.W * shape.C, outputs = shape.P() * shape.Q() * shape.C;
  auto x = values<T>(inputs), y = values<T>(outputs);
  auto weight = values<float>(9 * shape.C);
  BenchScratch scratch;
  const Stream stream{nullptr, &scratch};
  for (auto _ : state) {
    if constexpr (pass == Pass::kForward) cpu::depthwise_conv2d(stream, shape, x.data(), weight.data(), y.data());
    if constexpr (pass == Pass::kDx) cpu::depthwise_conv2d_dx(stream, shape, y.data(), weight.data(), x.data());
    if constexpr (pass == Pass::kDweight) {
      cpu::depthwise_conv2d_dweight(stream, shape, x.data(), y.data(), weight.data());
    }
  }
  state.SetBytesProcessed(state.iterations() * (inputs + outputs) * static_cast<int64_t>(sizeof(T)));
}

void depthwise_shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"H", "W", "C", "stride", "dilation"})->UseRealTime()->Unit(benchmark::kMillisecond);
  bench->Args({176, 352, 32, 1, 1})->Args({176, 352, 96, 2, 1})->Args({88, 176, 144, 1, 1})->Args({88, 176, 144, 2, 1});
  bench->Args({44, 88, 192, 1, 1})->Args({44, 88, 384, 1, 2})->Args({44, 88, 576, 1, 2})->Args({44, 88, 960, 1, 4});
}
BENCHMARK(depthwise<float, Pass::kForward>)->Apply(depthwise_shapes);
BENCHMARK(depthwise<float, Pass::kDx>)->Apply(depthwise_shapes);
BENCHMARK(depthwise<float, Pass::kDweight>)->Apply(depthwise_shapes);
BENCHMARK(depthwise<bf16, Pass::kForward>)->Apply(depthwise_shapes);
BENCHMARK(depthwise<bf16, Pass::kDx>)->Apply(depthwise_shapes);
BENCHMARK(depthwise<bf16, Pass::kDweight>)->Apply(depthwise_shapes);

enum class Norm { kStats, kForward, kGrad };

template <class T, Norm pass>
void batch_norm(benchmark::State& state) {
  const int64_t rows = state.range(0);
  const auto channels = static_cast<int>(state.range(1));
  const auto x = values<T>(rows * channels), dy = x;
  auto y = x;
  auto a = values<float>(channels), b = a, mean = a, rstd = a;
  const auto weight = a, bias = a;
  BenchScratch scratch;
  const Stream stream{nullptr, &scratch};
  const Activation act = Activation::kRelu6;
  int64_t maps = 0;  // moved
  for (auto _ : state) {
    if constexpr (pass == Norm::kStats) {
      maps = 1;
      cpu::batch_norm_batch_stats(stream, rows, channels, 1e-5f, 0.1f, x.data(), a.data(), b.data(), mean.data(),
                                  rstd.data());
    }
    if constexpr (pass == Norm::kForward) {
      maps = 2;
      cpu::batch_norm(stream, rows, channels, act, x.data(), mean.data(), rstd.data(), weight.data(), bias.data(),
                      y.data());
    }
    if constexpr (pass == Norm::kGrad) {
      maps = 5;
      cpu::batch_norm_grad(stream, rows, channels, act, Statistics::kBatch, x.data(), mean.data(), rstd.data(),
                           weight.data(), bias.data(), dy.data(), y.data(), a.data(), b.data());
    }
  }
  state.SetBytesProcessed(state.iterations() * maps * rows * channels * static_cast<int64_t>(sizeof(T)));
}

void norm_shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "C"})->UseRealTime()->Unit(benchmark::kMillisecond);
  bench->Args({176 * 352, 96})->Args({88 * 176, 24})->Args({44 * 88, 960});
}
BENCHMARK(batch_norm<float, Norm::kStats>)->Apply(norm_shapes);
BENCHMARK(batch_norm<float, Norm::kForward>)->Apply(norm_shapes);
BENCHMARK(batch_norm<float, Norm::kGrad>)->Apply(norm_shapes);
BENCHMARK(batch_norm<bf16, Norm::kStats>)->Apply(norm_shapes);
BENCHMARK(batch_norm<bf16, Norm::kForward>)->Apply(norm_shapes);
BENCHMARK(batch_norm<bf16, Norm::kGrad>)->Apply(norm_shapes);

// The element-wise and row-wise kernels of a transformer block, 1370 tokens.
enum class Token { kGelu, kGeluGrad, kNorm, kNormGrad, kScale, kScaleGrad };

template <class T, Token op>
void tokens(benchmark::State& state) {
  const int64_t rows = 1370, channels = op == Token::kGelu || op == Token::kGeluGrad ? 1536 : 384;
  auto x = values<T>(rows * channels), y = x, dy = x, dx = x;
  auto weight = values<float>(channels), bias = weight, dweight = weight, dbias = weight;
  auto mean = values<float>(rows), rstd = mean;
  BenchScratch scratch;
  const Stream stream{nullptr, &scratch};
  int64_t maps = 3;
  for (auto _ : state) {
    if constexpr (op == Token::kGelu) {
      maps = 2;
      cpu::gelu(stream, rows * channels, GeluKind::kErf, x.data(), y.data());
    } else if constexpr (op == Token::kGeluGrad) {
      cpu::gelu_grad(stream, rows * channels, GeluKind::kErf, x.data(), dy.data(), dx.data());
    } else if constexpr (op == Token::kNorm) {
      maps = 2;
      cpu::layer_norm(stream, rows, channels, 1e-6f, x.data(), weight.data(), bias.data(), y.data(), mean.data(),
                      rstd.data());
    } else if constexpr (op == Token::kNormGrad) {
      cpu::layer_norm_grad(stream, rows, channels, x.data(), weight.data(), mean.data(), rstd.data(), dy.data(),
                           dx.data(), dweight.data(), dbias.data());
    } else if constexpr (op == Token::kScale) {
      cpu::layer_scale(stream, rows, channels, x.data(), y.data(), weight.data(), dx.data());
    } else {
      cpu::layer_scale_grad(stream, rows, channels, x.data(), weight.data(), dy.data(), dx.data(), dweight.data());
    }
  }
  state.SetBytesProcessed(state.iterations() * maps * rows * channels * static_cast<int64_t>(sizeof(T)));
}

template <class T>
void register_tokens(const char* type) {
  const auto add = [&](const char* name, void (*run)(benchmark::State&)) {
    benchmark::RegisterBenchmark((std::string("tokens/") + name + "/" + type).c_str(), run)
        ->UseRealTime()
        ->Unit(benchmark::kMillisecond);
  };
  add("gelu", tokens<T, Token::kGelu>);
  add("gelu_grad", tokens<T, Token::kGeluGrad>);
  add("layer_norm", tokens<T, Token::kNorm>);
  add("layer_norm_grad", tokens<T, Token::kNormGrad>);
  add("layer_scale", tokens<T, Token::kScale>);
  add("layer_scale_grad", tokens<T, Token::kScaleGrad>);
}
const bool kTokensAreRegistered = (register_tokens<float>("fp32"), register_tokens<bf16>("bf16"), true);

}  // namespace
}  // namespace depthstill
