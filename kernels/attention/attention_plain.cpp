// Attention in plain loops, for processors without AVX-512: query after query against all keys, along contiguous keys
// (scores) or contiguous channels (sums), which any vector unit can do.
#include <vector>

#include "kernels/attention/attention_tiles.h"
#include "kernels/core/parallel.h"
#include "kernels/core/vector_math.h"

namespace depthstill::cpu {
namespace {

using attention_detail::score_scale;
using Floats = std::vector<float>;

Floats floats(int64_t n) { return Floats(static_cast<size_t>(n)); }

// One head of q, k or v (part 0, 1, 2) as floats: [token][d], or transposed [d][token].
template <class T>
struct Head {
  const AttentionShape& shape;
  int64_t n, h;

  int64_t offset(int64_t token, int64_t part) const {
    return (n * shape.T + token) * 3 * shape.C + part * shape.C + h * shape.d();
  }
  void load(const T* qkv, int64_t part, bool transposed, Floats& out) const {
    const int64_t d = shape.d();
    for (int64_t t = 0; t < shape.T; ++t) {
      const T* row = qkv + offset(t, part);
      for (int64_t c = 0; c < d; ++c) {
        out[static_cast<size_t>(transposed ? c * shape.T + t : t * d + c)] = static_cast<float>(row[c]);
      }
    }
  }
  void store(const Floats& in, float factor, int64_t part, T* dqkv) const {
    const int64_t d = shape.d();
    for (int64_t t = 0; t < shape.T; ++t) {
      for (int64_t c = 0; c < d; ++c) {
        dqkv[offset(t, part) + c] = static_cast<T>(factor * in[static_cast<size_t>(t * d + c)]);
      }
    }
  }
};

void add_scaled(int64_t n, float factor, const float* x, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

// out[j] = scale * sum_c x[c] * matrix[c][j]
template <class T>
void times_transposed(int64_t d, int64_t tokens, float scale, const T* x, const Floats& matrix, Floats& out) {
  std::fill(out.begin(), out.end(), 0.0f);
  for (int64_t c = 0; c < d; ++c) {
    add_scaled(tokens, scale * static_cast<float>(x[c]), matrix.data() + c * tokens, out.data());
  }
}

}  // namespace

template <class T>
void plain_attention(Stream, const AttentionShape& shape, const T* qkv, T* y, float* lse) {
  const int64_t d = shape.d(), tokens = shape.T;
  const float scale = score_scale(shape);
  parallel_ranges(shape.N * shape.heads * tokens, 16, [&](int64_t begin, int64_t end, int) {
    Floats keys = floats(d * tokens), values = floats(tokens * d), p = floats(tokens), sum = floats(d);
    int64_t loaded = -1;
    for (int64_t row = begin; row < end; ++row) {
      const int64_t i = row % tokens, head_index = row / tokens;
      const Head<T> head{shape, head_index / shape.heads, head_index % shape.heads};
      if (head_index != loaded) {
        head.load(qkv, 1, true, keys);
        head.load(qkv, 2, false, values);
        loaded = head_index;
      }
      times_transposed(d, tokens, scale, qkv + head.offset(i, 0), keys, p);
      const float max = *std::max_element(p.begin(), p.end());
      for (float& v : p) v = vector_exp(v - max);
      float total = 0.0f;
      std::fill(sum.begin(), sum.end(), 0.0f);
      for (int64_t j = 0; j < tokens; ++j) {
        total += p[static_cast<size_t>(j)];
        add_scaled(d, p[static_cast<size_t>(j)], values.data() + j * d, sum.data());
      }
      T* y_row = y + (head.n * tokens + i) * shape.C + head.h * d;
      for (int64_t c = 0; c < d; ++c) y_row[c] = static_cast<T>(sum[static_cast<size_t>(c)] / total);
      lse[row] = max + std::log(total);
    }
  });
}

template <class T>
void plain_attention_grad(Stream, const AttentionShape& shape, const T* qkv, const T* y, const float* lse, const T* dy,
                          T* dqkv) {
  const int64_t d = shape.d(), tokens = shape.T;
  const float scale = score_scale(shape);
  parallel_ranges(shape.N * shape.heads, 1, [&](int64_t begin, int64_t end, int) {
    Floats keys = floats(d * tokens), keys_t = keys, values_t = keys, queries = keys, p = floats(tokens), dp = p;
    for (int64_t head_index = begin; head_index < end; ++head_index) {
      const Head<T> head{shape, head_index / shape.heads, head_index % shape.heads};
      head.load(qkv, 0, false, queries);
      head.load(qkv, 1, false, keys);
      head.load(qkv, 1, true, keys_t);
      head.load(qkv, 2, true, values_t);
      Floats dq = floats(tokens * d), dk = dq, dv = dq, dy_row = floats(d);
      for (int64_t i = 0; i < tokens; ++i) {
        const int64_t at = (head.n * tokens + i) * shape.C + head.h * d;
        float delta = 0.0f;
        for (int64_t c = 0; c < d; ++c) {
          dy_row[static_cast<size_t>(c)] = static_cast<float>(dy[at + c]);
          delta += static_cast<float>(dy[at + c]) * static_cast<float>(y[at + c]);
        }
        const float* q = queries.data() + i * d;
        times_transposed(d, tokens, scale, q, keys_t, p);
        times_transposed(d, tokens, 1.0f, dy_row.data(), values_t, dp);
        const float row_lse = lse[head_index * tokens + i];
        for (int64_t j = 0; j < tokens; ++j) {
          const auto k = static_cast<size_t>(j);
          p[k] = vector_exp(p[k] - row_lse);
          dp[k] = p[k] * (dp[k] - delta);
        }
        for (int64_t j = 0; j < tokens; ++j) {
          const auto k = static_cast<size_t>(j);
          add_scaled(d, p[k], dy_row.data(), dv.data() + j * d);
          add_scaled(d, dp[k], q, dk.data() + j * d);
          add_scaled(d, dp[k], keys.data() + j * d, dq.data() + i * d);
        }
      }
      head.store(dq, scale, 0, dqkv);
      head.store(dk, scale, 1, dqkv);
      head.store(dv, 1.0f, 2, dqkv);
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
