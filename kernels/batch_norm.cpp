#include "kernels/batch_norm.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/channels.h"
#include "kernels/core/column_sums.h"
#include "kernels/core/parallel.h"

namespace depthstill::cpu {
namespace {

constexpr int64_t kGrain = 1 << 14;  // elements worth a thread
constexpr int64_t kChunkRows = 64;   // rows summed in float before the sums go to double
constexpr int64_t kRowsAtOnce = 4;   // rows added per load and store of the sums

// These do what the scalar versions in activation.h do; a NaN compares false and so passes.
template <Activation kind>
inline Lanes activate(Lanes x) {
  if constexpr (kind == Activation::kRelu || kind == Activation::kRelu6) x = x < 0.0f ? Lanes{} : x;
  if constexpr (kind == Activation::kRelu6) x = x > 6.0f ? Lanes{} + 6.0f : x;
  if constexpr (kind == Activation::kSigmoid) {
    for (int i = 0; i < kLanes; ++i) x[i] = depthstill::activate<kind>(x[i]);
  }
  return x;
}
template <Activation kind>
inline float activate(float x) {
  return depthstill::activate<kind>(x);
}

// dy * act'(z)
template <Activation kind>
inline Lanes through_activation(Lanes dy, Lanes z) {
  if constexpr (kind == Activation::kRelu) return z > 0.0f ? dy : Lanes{};
  if constexpr (kind == Activation::kRelu6) return z > 0.0f ? (z < 6.0f ? dy : Lanes{}) : Lanes{};
  if constexpr (kind == Activation::kSigmoid) {
    const Lanes y = activate<kind>(z);
    return dy * y * (1.0f - y);
  }
  return dy;
}
template <Activation kind>
inline float through_activation(float dy, float z) {
  return dy * activation_slope<kind>(depthstill::activate<kind>(z));
}

// mean, rstd and the running statistics of one channel; `biased` is the variance of n rows.
void assign_stats(int c, double m, double biased, double n, float eps, float momentum, float* running_mean,
                  float* running_var, float* mean, float* rstd) {
  mean[c] = static_cast<float>(m);
  rstd[c] = static_cast<float>(1.0 / std::sqrt(biased + static_cast<double>(eps)));
  running_mean[c] += momentum * (mean[c] - running_mean[c]);
  running_var[c] += momentum * (static_cast<float>(biased * n / (n - 1.0)) - running_var[c]);
}

int64_t grain_of(int channels) { return std::max<int64_t>(1, kGrain / channels); }

// Two sums per channel, the second `channels` after the first.
BlockSums two_sums(Stream stream, int64_t rows, int channels, int64_t floats) {
  const int64_t size = 2 * int64_t{channels};
  return {stream, rows, BlockSums::rows_of_block(rows, grain_of(channels)), size, size, floats};
}

// Lets add.operator()<V>(first, row, c, s0, s1) add the channels c, c + 1, ... of a chunk's rows to two sums. It is not
// inlined: its loops want all registers.
template <class Add>
[[gnu::noinline]] void sum_chunk(int64_t first, int64_t last, int channels, float* sums, const Add& add) {
  float *sum0 = sums, *sum1 = sums + channels;
  std::fill_n(sums, 2 * channels, 0.0f);
  for (int64_t row = first; row < last; row += kRowsAtOnce) {
    const int64_t stop = std::min(last, row + kRowsAtOnce);
    for_channels(channels, [&]<class V>(int64_t c) {
      V s0 = load<V>(sum0 + c), s1 = load<V>(sum1 + c);
      for (int64_t r = row; r < stop; ++r) add.template operator()<V>(first, r, c, s0, s1);
      store(sum0 + c, s0);
      store(sum1 + c, s1);
    });
  }
}

// Cuts the rows into chunks, and for each of them sums, as above, and calls flush(first, last, sums, totals).
template <class Add, class Flush>
void sum_rows(const BlockSums& block_sums, int channels, const Add& add, const Flush& flush) {
  block_sums.add_blocks([&](int64_t begin, int64_t end, double* totals, float* sums) {
    for (int64_t first = begin; first < end; first += kChunkRows) {
      const int64_t last = std::min(end, first + kChunkRows);
      sum_chunk(first, last, channels, sums, add);
      flush(first, last, sums, totals);
    }
  });
}

// assign(c, mean, biased variance) for every channel of x. Sums in float are taken relative to the chunk's first row.
template <class T, class Assign>
void moments_of(Stream stream, int64_t rows, int channels, const T* x, const Assign& assign) {
  const BlockSums block_sums = two_sums(stream, rows, channels, 0);
  sum_rows(
      block_sums, channels,
      [x, channels]<class V>(int64_t first, int64_t row, int64_t c, V& s0, V& s1) {
        const V d = load<V>(x + row * channels + c) - load<V>(x + first * channels + c);
        s0 += d;
        s1 += d * d;
      },
      [&](int64_t first, int64_t last, const float* sums, double* totals) {
        const float* squares = sums + channels;
        double* total_of_squares = totals + channels;
        const auto n = static_cast<double>(last - first);
        for (int c = 0; c < channels; ++c) {
          const auto shift = static_cast<double>(static_cast<float>(x[first * channels + c]));
          const auto s = static_cast<double>(sums[c]);
          totals[c] += s + n * shift;
          total_of_squares[c] += static_cast<double>(squares[c]) + 2.0 * shift * s + n * shift * shift;
        }
      });
  const double* totals = block_sums.finish();
  const auto n = static_cast<double>(rows);
  for (int c = 0; c < channels; ++c) {
    const double m = totals[c] / n, var = totals[channels + c] / n - m * m;
    assign(c, m, var < 0.0 ? 0.0 : var);  // NaN passes
  }
}

// dx = scale * dz + slope * (x - mean) + offset, (channels) each.
struct Coefficients {
  float *scale, *slope, *offset;

  // Assigns slope and offset from the sums of dz and of dz * (x - mean), and dweight and dbias.
  template <class Sum>
  void assign(int64_t rows, int channels, Statistics statistics, const float* rstd, const Sum* sums, float* dweight,
              float* dbias) const {
    const bool constant = statistics == Statistics::kConstant;
    for (int c = 0; c < channels; ++c) {
      const double sum = static_cast<double>(sums[c]), r = static_cast<double>(rstd[c]);
      const double sum_h = static_cast<double>(sums[channels + c]) * r,
                   per_row = static_cast<double>(scale[c]) / static_cast<double>(rows);
      dbias[c] = static_cast<float>(sum);
      dweight[c] = static_cast<float>(sum_h);
      slope[c] = constant ? 0.0f : static_cast<float>(-per_row * sum_h * r);
      offset[c] = constant ? 0.0f : static_cast<float>(-per_row * sum);
    }
  }
  template <class V>
  V dx(int64_t c, V dz, V centred) const {
    return dz * load<V>(scale + c) + (centred * load<V>(slope + c) + load<V>(offset + c));
  }
};

}  // namespace

template <class T>
void batch_norm_batch_stats(Stream stream, int64_t rows, int channels, float eps, float momentum, const T* x,
                            float* running_mean, float* running_var, float* mean, float* rstd) {
  const auto assign = [&](int c, double m, double biased) {
    assign_stats(c, m, biased, static_cast<double>(rows), eps, momentum, running_mean, running_var, mean, rstd);
  };
  moments_of(stream, rows, channels, x, assign);
}

template <class T>
void batch_norm_moments(Stream stream, int64_t rows, int channels, const T* x, float* moments) {
  moments_of(stream, rows, channels, x, [&](int c, double m, double biased) {
    moments[c] = static_cast<float>(m);
    moments[channels + c] = static_cast<float>(biased);
  });
}

template <class T>
void batch_norm_moments_of_sums(Stream stream, int64_t rows, int channels, const T* x, const float* guess,
                                float* moments) {
  const auto n = static_cast<double>(rows);
  for (int c = 0; c < channels; ++c) {
    const double d = static_cast<double>(moments[c]) / n;
    const double var = static_cast<double>(moments[channels + c]) / n - d * d;
    if (cancels(d, var)) return batch_norm_moments(stream, rows, channels, x, moments);  // assigns all of them
    moments[c] = static_cast<float>(static_cast<double>(guess[c]) + d);
    moments[channels + c] = static_cast<float>(var < 0.0 ? 0.0 : var);
  }
}

void batch_norm_ready_stats(Stream, int64_t rows, int channels, float eps, float momentum, const float* moments,
                            float* running_mean, float* running_var, float* mean, float* rstd) {
  for (int c = 0; c < channels; ++c) {
    assign_stats(c, static_cast<double>(moments[c]), static_cast<double>(moments[channels + c]),
                 static_cast<double>(rows), eps, momentum, running_mean, running_var, mean, rstd);
  }
}

void batch_norm_running_stats(Stream, int channels, float eps, const float* running_mean, const float* running_var,
                              float* mean, float* rstd) {
  for (int c = 0; c < channels; ++c) {
    mean[c] = running_mean[c];
    rstd[c] = 1.0f / std::sqrt(running_var[c] + eps);
  }
}

template <class T>
void batch_norm(Stream stream, int64_t rows, int channels, const BatchNormInput& norm, const T* x, T* y) {
  auto* scale = static_cast<float*>(stream.scratch->get(static_cast<size_t>(channels) * sizeof(float)));
  for (int c = 0; c < channels; ++c) scale[c] = norm.rstd[c] * norm.weight[c];
  visit(norm.act, [&]<Activation kind>() {
    parallel_for(rows, grain_of(channels), [&](int64_t row) {
      const T* from = x + row * channels;
      T* to = y + row * channels;
      for_channels(channels, [&]<class V>(int64_t c) {
        const V h = load<V>(from + c) - load<V>(norm.mean + c);
        store(to + c, activate<kind>(h * load<V>(scale + c) + load<V>(norm.bias + c)));
      });
    });
  });
}

template <class T>
void batch_norm_grad(Stream stream, int64_t rows, int channels, const BatchNormInput& norm, Statistics statistics,
                     const T* x, const T* dy, const BatchNormGradients<T>& to) {
  const BlockSums block_sums = two_sums(stream, rows, channels, 3 * int64_t{channels});
  float* const scale = block_sums.more();
  const Coefficients coefficients{scale, scale + channels, scale + 2 * channels};
  const float *mean = norm.mean, *bias = norm.bias;
  T *const dx = to.dx, *const y = to.y;
  for (int c = 0; c < channels; ++c) scale[c] = norm.rstd[c] * norm.weight[c];
  visit(norm.act, [&]<Activation kind>() {
    const auto dz_of = [&]<class V>(int64_t row, int64_t c, V centred) {
      const V dz = load<V>(dy + row * channels + c);
      if constexpr (kind == Activation::kNone) return dz;
      return through_activation<kind>(dz, centred * load<V>(scale + c) + load<V>(bias + c));
    };
    sum_rows(
        block_sums, channels,
        [&]<class V>(int64_t, int64_t row, int64_t c, V& s0, V& s1) {
          const V centred = load<V>(x + row * channels + c) - load<V>(mean + c);
          const V dz = dz_of(row, c, centred);
          s0 += dz;
          s1 += dz * centred;
        },
        [&](int64_t, int64_t, const float* sums, double* totals) {
          for (int i = 0; i < 2 * channels; ++i) totals[i] += static_cast<double>(sums[i]);
        });
    coefficients.assign(rows, channels, statistics, norm.rstd, block_sums.finish(), to.dweight, to.dbias);
    if (!dx && !y) return;
    parallel_for(rows, grain_of(channels), [&](int64_t row) {
      for_channels(channels, [&]<class V>(int64_t c) {
        const V centred = load<V>(x + row * channels + c) - load<V>(mean + c);
        if (y) store(y + row * channels + c, activate<kind>(centred * load<V>(scale + c) + load<V>(bias + c)));
        if (!dx) return;
        store(dx + row * channels + c, coefficients.dx(c, dz_of(row, c, centred), centred));
      });
    });
  });
}

template <class T>
void batch_norm_grad_of_sums(Stream stream, int64_t rows, int channels, const BatchNormInput& norm,
                             Statistics statistics, const T* x, const float* sums, const T* dz,
                             const BatchNormGradients<T>& to) {
  auto* scale = static_cast<float*>(stream.scratch->get(3 * static_cast<size_t>(channels) * sizeof(float)));
  const Coefficients coefficients{scale, scale + channels, scale + 2 * channels};
  const float* mean = norm.mean;
  T* const dx = to.dx;
  for (int c = 0; c < channels; ++c) scale[c] = norm.rstd[c] * norm.weight[c];
  coefficients.assign(rows, channels, statistics, norm.rstd, sums, to.dweight, to.dbias);
  parallel_for(rows, grain_of(channels), [&](int64_t row) {
    for_channels(channels, [&]<class V>(int64_t c) {
      const V centred = load<V>(x + row * channels + c) - load<V>(mean + c);
      store(dx + row * channels + c, coefficients.dx(c, load<V>(dz + row * channels + c), centred));
    });
  });
}

#define DS_INSTANTIATE(T)                                                                                             \
  template void batch_norm_batch_stats(Stream, int64_t, int, float, float, const T*, float*, float*, float*, float*); \
  template void batch_norm_moments(Stream, int64_t, int, const T*, float*);                                           \
  template void batch_norm_moments_of_sums(Stream, int64_t, int, const T*, const float*, float*);                     \
  template void batch_norm(Stream, int64_t, int, const BatchNormInput&, const T*, T*);                                \
  template void batch_norm_grad(Stream, int64_t, int, const BatchNormInput&, Statistics, const T*, const T*,          \
                                const BatchNormGradients<T>&);                                                        \
  template void batch_norm_grad_of_sums(Stream, int64_t, int, const BatchNormInput&, Statistics, const T*,            \
                                        const float*, const T*, const BatchNormGradients<T>&);
DS_INSTANTIATE(float)
DS_INSTANTIATE(bf16)
#undef DS_INSTANTIATE

}  // namespace depthstill::cpu
