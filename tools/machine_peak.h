// What a device can do at most, measured where it is used: the bound that times are held against.
#pragma once

#include <algorithm>
#include <string>

#include "engine/profile.h"

namespace depthstill {

struct MachinePeak {
  double flops_per_s = 0;       // CPU: multiply-adds from registers, all threads; CUDA: one large matrix product
  double copy_bytes_per_s = 0;  // read and written by a copy far larger than the caches

  double bound_ms(const Work& work) const {
    return 1e3 * std::max(work.flops / flops_per_s, work.bytes / copy_bytes_per_s);
  }
};

// For activations of `dtype`. Takes about a second.
MachinePeak measure_peak(Device device, DType dtype);

// "1210 GFLOP/s fp32, 31.0 GB/s copied".
std::string peak_text(const MachinePeak& peak, DType dtype);

}  // namespace depthstill
