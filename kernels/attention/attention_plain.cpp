// Attention for processors without tile kernels, in products of small matrices over lanes, which any vector unit can
// do: blocks of queries against all keys of a head, all in float.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/attention/attention_tiles.h"
#include "kernels/core/lanes.h"
#include "kernels/core/parallel.h"
#include "kernels/core/vector_math.h"

namespace depthstill::cpu {
namespace {

using attention_detail::score_scale;

constexpr int64_t kRows = 4, kColumns = 2 * kLanes;  // of C that a product keeps in registers
constexpr int64_t kQueries = 32;                     // of a block
static_assert(kQueries % kRows == 0);

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Rows of whole lanes, all of them zeros at first; as many that a product takes them without a rest.
struct Matrix {
  int64_t rows, stride;
  std::vector<float> values;

  Matrix(int64_t row_count, int64_t columns)
      : rows(round_up(row_count, std::max(kRows, kColumns))),
        stride(round_up(columns, kColumns)),
        values(static_cast<size_t>(rows * stride)) {}
  float* row(int64_t i) { return values.data() + i * stride; }
  const float* row(int64_t i) const { return values.data() + i * stride; }
  void clear() { std::fill(values.begin(), values.end(), 0.0f); }
};

// c (rows, columns) += a b, for `inner` columns of a, or of its transpose, and rows of b. Results beyond `rows` and
// `columns` are written, too.
template <bool transposed>
void add_product(int64_t rows, int64_t inner, int64_t columns, const Matrix& a, const Matrix& b, Matrix& c) {
  for (int64_t i = 0; i < rows; i += kRows) {
    for (int64_t j = 0; j < columns; j += kColumns) {
      Lanes sums[kRows][2];
      for (int64_t r = 0; r < kRows; ++r) {
        for (int64_t v = 0; v < 2; ++v) sums[r][v] = load_lanes(c.row(i + r) + j + v * kLanes);
      }
      for (int64_t k = 0; k < inner; ++k) {
        const Lanes b0 = load_lanes(b.row(k) + j), b1 = load_lanes(b.row(k) + j + kLanes);
        for (int64_t r = 0; r < kRows; ++r) {
          const float factor = transposed ? a.row(k)[i + r] : a.row(i + r)[k];
          sums[r][0] += factor * b0;
          sums[r][1] += factor * b1;
        }
      }
      for (int64_t r = 0; r < kRows; ++r) {
        for (int64_t v = 0; v < 2; ++v) store_lanes(c.row(i + r) + j + v * kLanes, sums[r][v]);
      }
    }
  }
}

// One head of q, k or v (part 0, 1, 2).
template <class T>
struct Head {
  const AttentionShape& shape;
  int64_t n, h;

  int64_t offset(int64_t token, int64_t part) const {
    return (n * shape.T + token) * 3 * shape.C + part * shape.C + h * shape.d();
  }
  // Rows of y or dy.
  int64_t output(int64_t token) const { return (n * shape.T + token) * shape.C + h * shape.d(); }

  // factor times the tokens from `first` on, as the rows of `out`.
  void load(const T* qkv, int64_t part, float factor, int64_t first, int64_t count, Matrix& out) const {
    for (int64_t t = 0; t < count; ++t) {
      const T* from = qkv + offset(first + t, part);
      for (int64_t c = 0; c < shape.d(); ++c) out.row(t)[c] = factor * static_cast<float>(from[c]);
    }
  }
  // All tokens, as its columns.
  void load_transposed(const T* qkv, int64_t part, Matrix& out) const {
    for (int64_t t = 0; t < shape.T; ++t) {
      const T* from = qkv + offset(t, part);
      for (int64_t c = 0; c < shape.d(); ++c) out.row(c)[t] = static_cast<float>(from[c]);
    }
  }
  void store(const Matrix& in, float factor, int64_t part, int64_t first, int64_t count, T* dqkv) const {
    for (int64_t t = 0; t < count; ++t) {
      T* to = dqkv + offset(first + t, part);
      for (int64_t c = 0; c < shape.d(); ++c) to[c] = static_cast<T>(factor * in.row(t)[c]);
    }
  }
};

}  // namespace

template <class T>
void plain_attention(Stream, const AttentionShape& shape, const T* qkv, T* y, float* lse) {
  const int64_t d = shape.d(), tokens = shape.T, blocks = (tokens + kQueries - 1) / kQueries;
  const float scale = score_scale(shape);
  parallel_ranges(shape.N * shape.heads * blocks, 1, [&](int64_t begin, int64_t end, int) {
    Matrix keys(d, tokens), values(tokens, d), queries(kQueries, d), p(kQueries, tokens), sums(kQueries, d);
    int64_t loaded = -1;
    for (int64_t block = begin; block < end; ++block) {
      const int64_t head_index = block / blocks, first = block % blocks * kQueries;
      const int64_t count = std::min(kQueries, tokens - first);
      const Head<T> head{shape, head_index / shape.heads, head_index % shape.heads};
      if (head_index != loaded) {
        head.load_transposed(qkv, 1, keys);
        head.load(qkv, 2, 1.0f, 0, tokens, values);
        loaded = head_index;
      }
      head.load(qkv, 0, scale, first, count, queries);
      p.clear();
      add_product<false>(count, d, tokens, queries, keys, p);
      float totals[kQueries];
      for (int64_t i = 0; i < count; ++i) {
        float* row = p.row(i);
        const float max = *std::max_element(row, row + tokens);
        float total = 0.0f;
#pragma omp simd reduction(+ : total)
        for (int64_t j = 0; j < tokens; ++j) {
          row[j] = vector_exp(row[j] - max);
          total += row[j];
        }
        totals[i] = total;
        lse[head_index * tokens + first + i] = max + std::log(total);
      }
      sums.clear();
      add_product<false>(count, tokens, d, p, values, sums);
      for (int64_t i = 0; i < count; ++i) {
        T* to = y + head.output(first + i);
        for (int64_t c = 0; c < d; ++c) to[c] = static_cast<T>(sums.row(i)[c] / totals[i]);
      }
    }
  });
}

template <class T>
void plain_attention_grad(Stream, const AttentionShape& shape, const T* qkv, const T* y, const float* lse, const T* dy,
                          T* dqkv) {
  const int64_t d = shape.d(), tokens = shape.T;
  const float scale = score_scale(shape);
  parallel_ranges(shape.N * shape.heads, 1, [&](int64_t begin, int64_t end, int) {
    Matrix keys(tokens, d), keys_t(d, tokens), values_t(d, tokens), dk(tokens, d), dv(tokens, d);
    Matrix queries(kQueries, d), dys(kQueries, d), p(kQueries, tokens), ds(kQueries, tokens), dq(kQueries, d);
    for (int64_t head_index = begin; head_index < end; ++head_index) {
      const Head<T> head{shape, head_index / shape.heads, head_index % shape.heads};
      head.load(qkv, 1, 1.0f, 0, tokens, keys);
      head.load_transposed(qkv, 1, keys_t);
      head.load_transposed(qkv, 2, values_t);
      for (Matrix* sum : {&dk, &dv}) sum->clear();
      for (int64_t first = 0; first < tokens; first += kQueries) {
        const int64_t count = std::min(kQueries, tokens - first);
        for (Matrix* sum : {&p, &ds, &dq}) sum->clear();
        head.load(qkv, 0, scale, first, count, queries);
        float delta[kQueries] = {};
        for (int64_t i = 0; i < count; ++i) {
          const T *dy_row = dy + head.output(first + i), *y_row = y + head.output(first + i);
          for (int64_t c = 0; c < d; ++c) {
            dys.row(i)[c] = static_cast<float>(dy_row[c]);
            delta[i] += static_cast<float>(dy_row[c]) * static_cast<float>(y_row[c]);
          }
        }
        add_product<false>(count, d, tokens, queries, keys_t, p);
        add_product<false>(count, d, tokens, dys, values_t, ds);
        for (int64_t i = 0; i < count; ++i) {
          const float row_lse = lse[head_index * tokens + first + i], row_delta = delta[i];
          float *p_row = p.row(i), *ds_row = ds.row(i);
#pragma omp simd
          for (int64_t j = 0; j < tokens; ++j) {
            p_row[j] = vector_exp(p_row[j] - row_lse);
            ds_row[j] = p_row[j] * (ds_row[j] - row_delta);
          }
        }
        add_product<true>(tokens, count, d, p, dys, dv);
        add_product<true>(tokens, count, d, ds, queries, dk);  // whose queries have the scale already
        add_product<false>(count, tokens, d, ds, keys, dq);
        head.store(dq, scale, 0, first, count, dqkv);
      }
      head.store(dk, 1.0f, 1, 0, tokens, dqkv);
      head.store(dv, 1.0f, 2, 0, tokens, dqkv);
    }
  });
}

template void plain_attention(Stream, const AttentionShape&, const float*, float*, float*);
template void plain_attention(Stream, const AttentionShape&, const bf16*, bf16*, float*);
template void plain_attention_grad(Stream, const AttentionShape&, const float*, const float*, const float*,
                                   const float*, float*);
template void plain_attention_grad(Stream, const AttentionShape&, const bf16*, const bf16*, const float*, const bf16*,
                                   bf16*);

}  // namespace depthstill::cpu
