// A MachinePeak says what a device can do at most, measured where it is used or as its maker states it. It is the bound
// that times are held against.
#pragma once

#include <algorithm>
#include <string>

#include "engine/profile.h"

namespace depthstill {

struct MachinePeak {
  double flops_per_s = 0;       // CPU: multiply-adds from registers, all threads; CUDA: one large matrix product
  double copy_bytes_per_s = 0;  // bytes read and written by a copy far larger than the caches

  double bound_ms(const Work& work) const {
    return 1e3 * std::max(work.flops / flops_per_s, work.bytes / copy_bytes_per_s);
  }
  // Tells whether it is the products that take this long, and not memory.
  bool bound_by_products(const Work& work) const { return work.flops / flops_per_s > work.bytes / copy_bytes_per_s; }
};

// The peak is that for activations of `dtype`. Measuring it takes about a second.
MachinePeak measure_peak(Device device, DType dtype);

// NVIDIA's figures for the H100 SXM and the H200 SXM (data sheets, without sparsity) are those of tensor cores, or with
// strict_fp32 and fp32 activations those of the fp32 units. The two differ in their memory. No kernel reaches them.
MachinePeak h100_peak(DType dtype, bool strict_fp32);
MachinePeak h200_peak(DType dtype, bool strict_fp32);

// "1210 GFLOP/s fp32, 31.0 GB/s copied".
std::string peak_text(const MachinePeak& peak, DType dtype);

}  // namespace depthstill
