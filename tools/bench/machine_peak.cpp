#include "tools/bench/machine_peak.h"

#include <chrono>
#include <cstdio>

#include "engine/allocator.h"
#include "engine/ops.h"
#include "engine/random_data.h"
#include "kernels/core/peak.h"

namespace depthstill {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// The fastest of the calls that fit into half a second, and of at least five: other work on the machine, if any, leaves
// some of them alone.
template <class F>
double best_seconds(Device device, F f) {
  constexpr int kLeastCalls = 5;
  constexpr double kSeconds = 0.5;
  f();
  double best = 0;
  const auto begin = Clock::now();
  for (int i = 0; i < kLeastCalls || seconds_since(begin) < kSeconds; ++i) {
    synchronize(device);
    const auto start = Clock::now();
    f();
    synchronize(device);
    const double seconds = seconds_since(start);
    if (i == 0 || seconds < best) best = seconds;
  }
  return best;
}

bool on_gpu(Device device) { return device == Device::kCuda && built_with_cuda(); }

double measure_flops(Device device, DType dtype) {
  if (device == Device::kCpu) {
    constexpr int64_t kIterations = 100'000;  // a millisecond or two: short enough to be left alone
    double flops = 0;
    const double seconds = best_seconds(
        device, [&] { visit(dtype, [&]<class T>() { flops = cpu::burn_multiply_adds<T>(kIterations); }); });
    return flops / seconds;
  }
  const int64_t side = !on_gpu(device) ? 64 : dtype == DType::kFloat ? 4096 : 8192;  // the emulator is slow
  const NoGrad no_grad;
  const Tensor x = random_values({side, side}, dtype, device);
  const Tensor weight = random_values({side, side}, DType::kFloat, device);
  const double seconds = best_seconds(device, [&] { linear(x, weight, Tensor()); });
  return 2.0 * static_cast<double>(side) * static_cast<double>(side) * static_cast<double>(side) / seconds;
}

double measure_copy(Device device) {
  const int64_t bytes = on_gpu(device) ? int64_t{1} << 30 : device == Device::kCpu ? int64_t{1} << 27 : 1 << 20;
  const Tensor from = zeros({bytes}, DType::kUint8, device), to = zeros({bytes}, DType::kUint8, device);
  const double seconds = best_seconds(device, [&] {
    if (device == Device::kCpu)
      cpu::copy_bytes(to.raw(), from.raw(), bytes);
    else
      copy_(to, from);
  });
  return 2.0 * static_cast<double>(bytes) / seconds;
}

}  // namespace

MachinePeak measure_peak(Device device, DType dtype) { return {measure_flops(device, dtype), measure_copy(device)}; }

MachinePeak h100_peak(DType dtype, bool strict_fp32) {
  constexpr double kBf16 = 989.4e12, kTf32 = 494.7e12, kFp32 = 66.9e12, kMemory = 3.35e12;
  return {dtype == DType::kBf16 ? kBf16 : strict_fp32 ? kFp32 : kTf32, kMemory};
}

MachinePeak h200_peak(DType dtype, bool strict_fp32) { return {h100_peak(dtype, strict_fp32).flops_per_s, 4.8e12}; }

std::string peak_text(const MachinePeak& peak, DType dtype) {
  char text[96];
  std::snprintf(text, sizeof(text), "%.0f GFLOP/s %s, %.1f GB/s copied", 1e-9 * peak.flops_per_s, name_of(dtype),
                1e-9 * peak.copy_bytes_per_s);
  return text;
}

}  // namespace depthstill
