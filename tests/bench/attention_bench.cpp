// Self-attention of ViT-S at 518 x 518 (1370 tokens, 6 heads of 64 channels), beside the rate of plain products of the
// same tile kernels: a 1x1 convolution of as many tokens. GFLOP/s count the 2 (forward) or 5 (backward) products.
#include <benchmark/benchmark.h>

#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/conv2d/conv2d.h"
#include "tests/bench/bench.h"

namespace depthstill {
namespace {

using bench::BenchScratch;
using bench::values;

void set_rate(benchmark::State& state, double products, const AttentionShape& s) {
  const double flop = products * 2 * static_cast<double>(s.N * s.T * s.T) * static_cast<double>(s.C);
  state.counters["GFLOP/s"] = benchmark::Counter(1e-9 * flop, benchmark::Counter::kIsIterationInvariantRate);
}

template <class T, bool backward>
void attention(benchmark::State& state) {
  const AttentionShape s{1, state.range(0), state.range(1), state.range(2)};
  const auto qkv = values<T>(s.T * 3 * s.C), dy = values<T>(s.T * s.C);
  auto y = dy, dqkv = qkv;
  auto lse = values<float>(s.heads * s.T);
  BenchScratch scratch;
  const Stream stream{nullptr, &scratch};
  cpu::attention(stream, s, qkv.data(), y.data(), lse.data());
  for (auto _ : state) {
    if constexpr (backward) {
      cpu::attention_grad(stream, s, qkv.data(), y.data(), lse.data(), dy.data(), dqkv.data());
    } else {
      cpu::attention(stream, s, qkv.data(), y.data(), lse.data());
    }
  }
  set_rate(state, backward ? 5 : 2, s);
}

// (T, C) x (C, C), 3 T / C times as wide: T * 3 T * C multiply-adds.
template <class T>
void plain_product(benchmark::State& state) {
  const Conv2dShape s{1, 1, 1370, 384, 1152, 1, 1, 1, 1, 0, 0, 0, 0};
  const auto x = values<T>(s.H * s.W * s.C);
  const auto weight = values<float>(s.O * s.C);
  auto y = values<T>(s.H * s.W * s.O);
  BenchScratch scratch;
  const Stream stream{nullptr, &scratch};
  for (auto _ : state) {
    cpu::conv2d<T>(stream, s, Activation::kNone, x.data(), weight.data(), nullptr, y.data());
  }
  const double flop = 2 * static_cast<double>(s.W * s.C) * static_cast<double>(s.O);
  state.counters["GFLOP/s"] = benchmark::Counter(1e-9 * flop, benchmark::Counter::kIsIterationInvariantRate);
}

void attention_shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"T", "C", "heads"})->UseRealTime()->Unit(benchmark::kMillisecond)->Args({1370, 384, 6});
}
BENCHMARK(attention<float, false>)->Apply(attention_shapes);
BENCHMARK(attention<float, true>)->Apply(attention_shapes);
BENCHMARK(attention<bf16, false>)->Apply(attention_shapes);
BENCHMARK(attention<bf16, true>)->Apply(attention_shapes);
BENCHMARK(plain_product<float>)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(plain_product<bf16>)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace depthstill
