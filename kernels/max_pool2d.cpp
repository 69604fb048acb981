#include "kernels/max_pool2d.h"

#include <algorithm>
#include <limits>

#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

constexpr int64_t kGrain = 1 << 13;  // elements worth a thread
constexpr int64_t kBlock = 64;       // channels at a time, held in arrays on the stack

struct Window {
  int64_t begin, end;
};

// Positions of the input that window `out` covers along an axis.
Window inputs_of(int64_t out, const MaxPoolShape& s, int64_t in_size) {
  const int64_t first = out * s.stride - s.pad;
  return {std::max<int64_t>(0, first), std::min(in_size, first + s.kernel)};
}

// Windows that cover position `in`.
Window windows_of(int64_t in, const MaxPoolShape& s, int64_t out_size) {
  const int64_t last = in + s.pad, first = last - s.kernel + 1;
  return {first <= 0 ? 0 : (first + s.stride - 1) / s.stride, std::min(out_size, last / s.stride + 1)};
}

// y and index of one output position for `count` <= kBlock channels; x points at the image's first of them.
template <class T>
void pool(const MaxPoolShape& s, int64_t p, int64_t q, int64_t count, const T* x, T* y, uint8_t* index) {
  float best[kBlock] = {};
  uint8_t where[kBlock] = {};
  const Window rows = inputs_of(p, s, s.H), columns = inputs_of(q, s, s.W);
  bool first = true;
  for (int64_t h = rows.begin; h < rows.end; ++h) {
    for (int64_t w = columns.begin; w < columns.end; ++w) {
      const auto tap = static_cast<uint8_t>((h - p * s.stride + s.pad) * s.kernel + (w - q * s.stride + s.pad));
      const T* from = x + (h * s.W + w) * s.C;
      for (int64_t c = 0; c < count; ++c) {
        const auto value = static_cast<float>(from[c]);
        const bool better = first || value > best[c] || value != value;
        best[c] = better ? value : best[c];
        where[c] = better ? tap : where[c];
      }
      first = false;
    }
  }
  for (int64_t c = 0; c < count; ++c) y[c] = static_cast<T>(best[c]);
  if (index) std::copy(where, where + count, index);
}

// dx of one input position for `count` <= kBlock channels; dy and index point at the image's first of them.
template <class T>
void gather(const MaxPoolShape& s, int64_t h, int64_t w, int64_t count, const T* dy, const uint8_t* index, T* dx) {
  float sum[kBlock] = {};
  const Window rows = windows_of(h, s, s.P()), columns = windows_of(w, s, s.Q());
  for (int64_t p = rows.begin; p < rows.end; ++p) {
    for (int64_t q = columns.begin; q < columns.end; ++q) {
      const int64_t tap = (h - p * s.stride + s.pad) * s.kernel + (w - q * s.stride + s.pad);
      const int64_t at = (p * s.Q() + q) * s.C;
      for (int64_t c = 0; c < count; ++c) {
        const auto value = static_cast<float>(dy[at + c]);
        sum[c] += index[at + c] == tap ? value : 0.0f;
      }
    }
  }
  for (int64_t c = 0; c < count; ++c) dx[c] = static_cast<T>(sum[c]);
}

// body(n, row, column, c, count) for every position of N maps and every block of channels; threads over rows.
template <class Body>
void for_blocks(int64_t N, int64_t height, int64_t width, int64_t C, const Body& body) {
  parallel_for(N * height, std::max<int64_t>(1, kGrain / (width * C)), [&](int64_t row) {
    for (int64_t column = 0; column < width; ++column) {
      for (int64_t c = 0; c < C; c += kBlock) body(row / height, row % height, column, c, std::min(kBlock, C - c));
    }
  });
}

}  // namespace

template <class T>
void max_pool2d(Stream, const MaxPoolShape& s, const T* x, T* y, uint8_t* index) {
  const int64_t P = s.P(), Q = s.Q();
  for_blocks(s.N, P, Q, s.C, [&](int64_t n, int64_t p, int64_t q, int64_t c, int64_t count) {
    const int64_t at = ((n * P + p) * Q + q) * s.C + c;
    pool(s, p, q, count, x + n * s.H * s.W * s.C + c, y + at, index ? index + at : nullptr);
  });
}

template <class T>
void max_pool2d_grad(Stream, const MaxPoolShape& s, const T* dy, const uint8_t* index, T* dx) {
  const int64_t image = s.P() * s.Q() * s.C;
  for_blocks(s.N, s.H, s.W, s.C, [&](int64_t n, int64_t h, int64_t w, int64_t c, int64_t count) {
    gather(s, h, w, count, dy + n * image + c, index + n * image + c, dx + ((n * s.H + h) * s.W + w) * s.C + c);
  });
}

template void max_pool2d(Stream, const MaxPoolShape&, const float*, float*, uint8_t*);
template void max_pool2d(Stream, const MaxPoolShape&, const bf16*, bf16*, uint8_t*);
template void max_pool2d_grad(Stream, const MaxPoolShape&, const float*, const uint8_t*, float*);
template void max_pool2d_grad(Stream, const MaxPoolShape&, const bf16*, const uint8_t*, bf16*);

}  // namespace depthstill::cpu
