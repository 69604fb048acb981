// Times of the fused losses at the student's output size (352 x 704, 257 bins, batch 1). Bounds: the logits are read
// once forward and read and written once backward, so bytes / (the machine's copy rate).
#include <benchmark/benchmark.h>

#include <vector>

#include "kernels/dpm.h"
#include "kernels/ssim.h"
#include "tests/bench/bench.h"

namespace depthstill {
namespace {

using bench::BenchScratch;

constexpr int64_t kHeight = 352, kWidth = 704, kPixels = kHeight * kWidth;

enum class Pass { kForward, kBackward };

std::vector<float> teacher_map() {
  std::vector<float> depth(static_cast<size_t>(kPixels));
  for (size_t i = 0; i < depth.size(); ++i) depth[i] = 2.0f + 70.0f * static_cast<float>(i % 1009) / 1009.0f;
  return depth;
}

template <class T, Pass pass, DpmTarget target, KlDirection kl>
void dpm(benchmark::State& state) {
  const DpmShape shape{1, kHeight, kWidth, state.range(0)};
  const DpmBins bins;
  DpmOptions options;
  options.target = target;
  options.kl = kl;
  const DpmTable table = make_dpm_table(bins, target, options.sigma, options.floor);
  std::vector<T> logits(static_cast<size_t>(kPixels * shape.channels));
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = T(static_cast<float>(i * 2654435761u % 1000) * 0.004f - 2.0f);
  const auto teacher = teacher_map();
  std::vector<float> depth(teacher.size()), lse(teacher.size()), offset(teacher.size()), result(2);
  const std::vector<float> ddepth(teacher.size(), 1e-6f);
  const float dkl = 1.0f;
  BenchScratch scratch;
  const Stream stream{nullptr, &scratch};
  const auto forward = [&] {
    cpu::dpm(stream, shape, bins, options, table.view, logits.data(), teacher.data(), depth.data(), lse.data(),
             offset.data(), result.data());
  };
  forward();
  for (auto _ : state) {
    if constexpr (pass == Pass::kForward) {
      forward();
    } else {
      cpu::dpm_grad(stream, shape, bins, options, table.view, teacher.data(), depth.data(), lse.data(), offset.data(),
                    result.data(), &dkl, ddepth.data(), logits.data());
    }
    benchmark::ClobberMemory();
  }
  const int64_t passes = pass == Pass::kForward ? 1 : 2;
  state.SetBytesProcessed(state.iterations() * passes * static_cast<int64_t>(logits.size() * sizeof(T)));
}

#define DPM_BENCH(T, pass, target, kl, channels)                    \
  BENCHMARK(dpm<T, Pass::pass, DpmTarget::target, KlDirection::kl>) \
      ->Arg(channels)                                               \
      ->UseRealTime()                                               \
      ->Unit(benchmark::kMillisecond)
DPM_BENCH(float, kForward, kMass, kStudentTeacher, 257);
DPM_BENCH(float, kBackward, kMass, kStudentTeacher, 257);
DPM_BENCH(bf16, kForward, kMass, kStudentTeacher, 257);
DPM_BENCH(bf16, kBackward, kMass, kStudentTeacher, 257);
DPM_BENCH(bf16, kForward, kMass, kStudentTeacher, 264);
DPM_BENCH(bf16, kBackward, kMass, kStudentTeacher, 264);
DPM_BENCH(float, kForward, kSoftmaxPdf, kTeacherStudent, 257);
DPM_BENCH(float, kBackward, kSoftmaxPdf, kTeacherStudent, 257);

// Value and gradient; 12 B per pixel, so the bound is arithmetic: 10 x 11 + 6 x 11 multiply-adds per pixel in double.
void ssim(benchmark::State& state) {
  const auto target = teacher_map();
  auto pred = target, gradient = target;
  for (size_t i = 0; i < pred.size(); ++i) pred[i] += 0.1f * static_cast<float>(i % 17);
  std::vector<float> result(2);
  BenchScratch scratch;
  const Stream stream{nullptr, &scratch};
  for (auto _ : state) {
    cpu::ssim(stream, {1, kHeight, kWidth, 0}, SsimMode::kCentred, true, pred.data(), target.data(), gradient.data(),
              result.data());
    benchmark::ClobberMemory();
  }
}
BENCHMARK(ssim)->UseRealTime()->Unit(benchmark::kMillisecond);

void si(benchmark::State& state) {
  const auto target = teacher_map();
  auto pred = target, gradient = target;
  std::vector<float> result(4);
  const float dloss = 1.0f;
  BenchScratch scratch;
  const Stream stream{nullptr, &scratch};
  const DepthMapShape shape{1, kHeight, kWidth, 0};
  for (auto _ : state) {
    cpu::depth_loss(stream, DepthLossKind::kSi, shape, true, pred.data(), target.data(), result.data());
    cpu::depth_loss_grad(stream, DepthLossKind::kSi, shape, true, pred.data(), target.data(), result.data(), &dloss,
                         gradient.data());
    benchmark::ClobberMemory();
  }
}
BENCHMARK(si)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace depthstill
