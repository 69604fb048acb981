// Single ops on random data, at the students' shapes or at one that is given: time, bytes, and how near to the bound.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/profile.h"

namespace depthstill {

struct KernelBenchOptions {
  Device device = Device::kCpu;
  DType dtype = DType::kFloat;
  int64_t batch = 1;  // batch of the shapes that are not given
  std::string shape;  // "1x352x704x257", in the order of shape_help(); empty: the students'
  int steps = 10, warmup = 2;
};

struct KernelTime {
  std::string kernel, pass, shape;  // pass: "forward", "backward", or the one gradient: "dx", "dweight"
  double median_ms = 0, min_ms = 0;
  Work work;
};

std::vector<std::string> bench_kernel_names();
std::string shape_help();  // one line per kernel
std::vector<KernelTime> bench_kernel(const std::string& kernel, const KernelBenchOptions& options);

}  // namespace depthstill
