// The arithmetic behind the simulated libraries: one matrix product, and the three passes of a convolution made of it.
#pragma once

#include <cstdint>
#include <vector>

namespace depthstill::simt {

// c (rows, columns) += a (rows, inner) * b (inner, columns), in fp32. Neighbours in a row of b and c are neighbours in
// memory; every other step is given. The sum over `inner` is complete before it is added to c.
struct Product {
  int64_t rows = 0, columns = 0, inner = 0;
  const float* a = nullptr;
  int64_t a_row = 0, a_inner = 0;
  const float* b = nullptr;
  int64_t b_inner = 0;
  float* c = nullptr;
  int64_t c_row = 0;
};
void multiply_add(const Product& product);

// Cross-correlation in two dimensions:
//   y[n,p,q,o] = sum over (r,s,c) of x[n, p*stride_h - pad_h + r*dilation_h, ..., c] * weight[o,r,s,c]
// `flipped` turns the filters by 180 degrees, which makes it a convolution. Buffers are dense (N, H, W, C), weight is
// (O, R, S, C).
struct Convolution2d {
  int64_t N = 0, H = 0, W = 0, C = 0, O = 0, R = 0, S = 0, P = 0, Q = 0;
  int64_t stride_h = 1, stride_w = 1, dilation_h = 1, dilation_w = 1, pad_h = 0, pad_w = 0;
  bool flipped = false;
};
using Values = std::vector<float>;

Values convolve(const Convolution2d& s, const Values& x, const Values& weight);
Values convolve_data_gradient(const Convolution2d& s, const Values& dy, const Values& weight);
Values convolve_weight_gradient(const Convolution2d& s, const Values& x, const Values& dy);

}  // namespace depthstill::simt
