#include "kernels/upsample_bicubic.h"

#include <vector>

#include "kernels/core/channels.h"
#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

// One axis as lists: position i of the result is the sum of weight[k] * from[k], k in [begin[i], begin[i + 1]).
struct Terms {
  std::vector<size_t> begin = {0};
  std::vector<int64_t> from;
  std::vector<float> weight;

  void add(int64_t position, float w) {
    if (w == 0.0f) return;
    from.push_back(position);
    weight.push_back(w);
  }
  void next() { begin.push_back(from.size()); }
};

Terms forward_terms(const BicubicAxis& axis) {
  Terms terms;
  for (int o = 0; o < axis.out; ++o) {
    const BicubicAxis::Taps taps = axis.taps(o);
    for (int k = 0; k < 4; ++k) terms.add(axis.clamp(taps.first + k), taps.weight[k]);
    terms.next();
  }
  return terms;
}

Terms gradient_terms(const BicubicAxis& axis) {
  Terms terms;
  for (int i = 0; i < axis.in; ++i) {
    const BicubicAxis::Range range = axis.readers(i);
    for (int o = range.first; o <= range.last; ++o) terms.add(o, axis.weight(o, i));
    terms.next();
  }
  return terms;
}

// to (N, rows, cols, C) from maps of from_height x from_width, both axes at once.
template <class T>
void combine(int64_t N, int64_t C, const Terms& rows, const Terms& cols, int64_t from_height, int64_t from_width,
             const T* from, T* to) {
  const auto height = static_cast<int64_t>(rows.begin.size()) - 1, width = static_cast<int64_t>(cols.begin.size()) - 1;
  parallel_for(N * height, 1, [&](int64_t row) {
    const auto i = static_cast<size_t>(row % height);
    const T* map = from + row / height * from_height * from_width * C;
    for (int64_t q = 0; q < width; ++q) {
      const auto j = static_cast<size_t>(q);
      T* pixel = to + (row * width + q) * C;
      for_channels(C, [&]<class V>(int64_t c) {
        V sum = {};
        for (size_t a = rows.begin[i]; a < rows.begin[i + 1]; ++a) {
          const T* line = map + rows.from[a] * from_width * C + c;
          V part = {};
          for (size_t b = cols.begin[j]; b < cols.begin[j + 1]; ++b) {
            part += cols.weight[b] * load<V>(line + cols.from[b] * C);
          }
          sum += rows.weight[a] * part;
        }
        store(pixel + c, sum);
      });
    }
  });
}

}  // namespace

template <class T>
void upsample_bicubic(Stream, const BicubicShape& s, const T* x, T* y) {
  combine(s.N, s.C, forward_terms(s.rows), forward_terms(s.cols), s.rows.in, s.cols.in, x, y);
}

template <class T>
void upsample_bicubic_grad(Stream, const BicubicShape& s, const T* dy, T* dx) {
  combine(s.N, s.C, gradient_terms(s.rows), gradient_terms(s.cols), s.rows.out, s.cols.out, dy, dx);
}

template void upsample_bicubic(Stream, const BicubicShape&, const float*, float*);
template void upsample_bicubic(Stream, const BicubicShape&, const bf16*, bf16*);
template void upsample_bicubic_grad(Stream, const BicubicShape&, const float*, float*);
template void upsample_bicubic_grad(Stream, const BicubicShape&, const bf16*, bf16*);

}  // namespace depthstill::cpu
