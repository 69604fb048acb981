// Rates of the dense convolutions at the student's shapes (352 x 704 input, batch 1), ours and oneDNN's. The rate
// column counts two operations per multiply-add; compare with the processor's peak.
#include <benchmark/benchmark.h>

#include <vector>

#include "kernels/conv2d/conv2d.h"
#include "kernels/conv2d/conv2d_dnn.h"
#include "tests/bench/bench.h"

namespace depthstill {
namespace {

using bench::BenchScratch;
using bench::values;

enum class Pass { kForward, kDx, kDweight };
enum class By { kOurs, kOnednn };

template <class T, Pass pass, By by>
void conv2d(benchmark::State& state) {
  const int64_t C = state.range(0), O = state.range(1), H = state.range(2), W = state.range(3), R = state.range(4);
  const int pad = static_cast<int>(R / 2);
  const Conv2dShape shape{1, H, W, C, O, R, R, 1, 1, pad, pad, pad, pad};
  auto x = values<T>(H * W * C), y = values<T>(H * W * O);
  auto weight = values<float>(O * R * R * C);
  const auto bias = values<float>(O);
  BenchScratch scratch;
  const Stream stream{nullptr, &scratch};
  const Activation none = Activation::kNone;
  const T* no_y = nullptr;
  for (auto _ : state) {
    if constexpr (by == By::kOurs) {
      if (pass == Pass::kForward) cpu::conv2d(stream, shape, none, x.data(), weight.data(), bias.data(), y.data());
      T* dx = pass == Pass::kDx ? x.data() : nullptr;
      float* dweight = pass == Pass::kDweight ? weight.data() : nullptr;
      if (pass != Pass::kForward) {
        cpu::conv2d_grad(stream, shape, none, x.data(), weight.data(), no_y, y.data(), {dx, dweight});
      }
    } else {
      if (pass == Pass::kForward) cpu::dnn_forward(stream, shape, x.data(), weight.data(), bias.data(), y.data());
      if (pass == Pass::kDx) cpu::dnn_grad_data(stream, shape, y.data(), weight.data(), x.data());
      if (pass == Pass::kDweight) cpu::dnn_grad_weight(stream, shape, x.data(), y.data(), weight.data());
    }
  }
  const double flops = 2.0 * static_cast<double>(H * W * O * R * R * C);
  state.counters["FLOP/s"] = benchmark::Counter(flops, benchmark::Counter::kIsIterationInvariantRate);
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"C", "O", "H", "W", "R"})->UseRealTime()->Unit(benchmark::kMillisecond);
  bench->Args({2144, 512, 44, 88, 3})->Args({512, 512, 44, 88, 3})->Args({544, 256, 44, 88, 3});
  bench->Args({280, 128, 88, 176, 3})->Args({128, 128, 176, 352, 3})->Args({128, 128, 352, 704, 3});
  bench->Args({128, 257, 352, 704, 1})->Args({320, 2048, 44, 88, 1})->Args({24, 144, 88, 176, 1});
  bench->Args({384, 1152, 1370, 1, 1})->Args({384, 384, 1370, 1, 1});  // linear layers of ViT-S at 518 x 518
  bench->Args({384, 1536, 1370, 1, 1})->Args({1536, 384, 1370, 1, 1});
}
BENCHMARK(conv2d<bf16, Pass::kForward, By::kOurs>)->Apply(shapes);
BENCHMARK(conv2d<bf16, Pass::kDx, By::kOurs>)->Apply(shapes);
BENCHMARK(conv2d<bf16, Pass::kDweight, By::kOurs>)->Apply(shapes);
BENCHMARK(conv2d<float, Pass::kForward, By::kOurs>)->Apply(shapes);
BENCHMARK(conv2d<float, Pass::kDx, By::kOurs>)->Apply(shapes);
BENCHMARK(conv2d<float, Pass::kDweight, By::kOurs>)->Apply(shapes);
BENCHMARK(conv2d<float, Pass::kForward, By::kOnednn>)->Apply(shapes);
BENCHMARK(conv2d<float, Pass::kDx, By::kOnednn>)->Apply(shapes);
BENCHMARK(conv2d<float, Pass::kDweight, By::kOnednn>)->Apply(shapes);

}  // namespace
}  // namespace depthstill
