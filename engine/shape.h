#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <ostream>

#include "kernels/core/error.h"

namespace depthstill {

// Sizes of at most four dimensions. Images are (N, H, W, C): channels last, always contiguous.
class Shape {
 public:
  static constexpr int kMaxRank = 4;

  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes) {
    check(sizes.size() <= kMaxRank, "shape: at most ", kMaxRank, " dimensions, got ", sizes.size());
    for (const int64_t size : sizes) push_back(size);
  }

  void push_back(int64_t size) {
    check(rank_ < kMaxRank, "shape: at most ", kMaxRank, " dimensions");
    check(size >= 0, "shape: sizes must not be negative, got ", size);
    sizes_[static_cast<size_t>(rank_++)] = size;
  }

  int rank() const { return rank_; }
  int64_t operator[](int dim) const { return sizes_[static_cast<size_t>(dim)]; }
  int64_t numel() const {
    int64_t n = 1;
    for (int d = 0; d < rank_; ++d) n *= sizes_[static_cast<size_t>(d)];
    return n;
  }
  bool operator==(const Shape&) const = default;

 private:
  std::array<int64_t, kMaxRank> sizes_{};
  int rank_ = 0;
};

inline std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  out << '(';
  for (int d = 0; d < shape.rank(); ++d) out << (d ? ", " : "") << shape[d];
  return out << ')';
}

}  // namespace depthstill
