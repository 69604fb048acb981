// The kernel benchmarks share scratch memory and data that is neither constant nor random.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/core/stream.h"

namespace depthstill::bench {

class BenchScratch final : public Scratch {
 public:
  void* get(size_t bytes) override {
    if (bytes_.size() < bytes + 64) bytes_.resize(bytes + 64);
    const auto address = reinterpret_cast<uintptr_t>(bytes_.data());
    return bytes_.data() + (64 - address % 64) % 64;
  }

 private:
  std::vector<unsigned char> bytes_;
};

// The values lie in [-2, 2) and are the same in every run.
template <class T>
std::vector<T> values(int64_t n) {
  std::vector<T> v(static_cast<size_t>(n));
  uint32_t state = 1;
  for (T& value : v) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<T>(static_cast<float>(state >> 8) * 0x1p-22f - 2.0f);
  }
  return v;
}

}  // namespace depthstill::bench
