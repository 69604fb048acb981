#include "kernels/dpm/dpm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/core/denormals.h"
#include "kernels/core/lanes.h"
#include "kernels/core/mean.h"
#include "kernels/core/parallel.h"
#include "kernels/core/vector_math.h"
#include "kernels/dpm/dpm_rows.h"

// GNU vectorises these loops as written; `omp simd` permits the reordering of the sums. Where a pixel's logits are 70
// and more apart, products of probabilities are denormal numbers; they are flushed, as they only take time.
namespace depthstill::cpu {
namespace {

constexpr float kLogZero = -103.97f;  // e^x rounds to 0 in float below it: the published code's q_i == 0

int round_up(int64_t n) { return static_cast<int>((n + kLanes - 1) / kLanes * kLanes); }

// One thread's copies of the current pixel's row. x, q and out have `guard` elements on both sides, so that a window of
// the target may reach past the first and the last bin.
struct PixelRow {
  int bins, padded, guard;
  float *x, *q, *out, *log_t;

  static size_t floats(int bins, int guard) { return static_cast<size_t>(3 * (round_up(bins) + 2 * guard) + guard); }

  PixelRow(int bin_count, int guard_columns, float* memory)
      : bins(bin_count), padded(round_up(bin_count)), guard(guard_columns) {
    const int stride = padded + 2 * guard;
    x = memory + guard;
    q = x + stride;
    out = q + stride;
    log_t = memory + 3 * stride;
    std::fill(memory, memory + stride, -1e30f);  // e^x is 0 there, and x e^x too
    std::fill(memory + stride, memory + 3 * stride, 0.0f);
  }

  // Copies the logits into x and returns the largest, passing over NaN.
  template <class T>
  float load(const T* logits) const {
    Lanes even = Lanes{} - INFINITY, odd = even;  // two, as each comparison waits for the one before
    int b = 0;
    for (; b + 2 * kLanes <= bins; b += 2 * kLanes) {
      const Lanes left = load_lanes(logits + b), right = load_lanes(logits + b + kLanes);
      store_lanes(x + b, left);
      store_lanes(x + b + kLanes, right);
      even = left > even ? left : even;
      odd = right > odd ? right : odd;
    }
    even = odd > even ? odd : even;
    float largest = -INFINITY;
    for (int lane = 0; lane < kLanes; ++lane) largest = even[lane] > largest ? even[lane] : largest;
    for (; b < bins; ++b) {
      x[b] = static_cast<float>(logits[b]);
      largest = x[b] > largest ? x[b] : largest;
    }
    return largest;
  }

  void store(float* logits) const { std::copy(out, out + bins, logits); }
  void store(bf16* logits) const {
    int b = 0;
    for (; b + kLanes <= bins; b += kLanes) store_lanes(logits + b, load_lanes(out + b));
    for (; b < bins; ++b) logits[b] = bf16(out[b]);
  }

  // log_t[j] for the window's columns, the floor where the target is off.
  void fill_target(const DpmTableView& table, const DpmWindow& window) const {
    const int columns = table.columns, lo = window.lo, hi = window.hi;
    float norm = window.log_norm;
    if (table.target == DpmTarget::kSoftmaxPdf) {
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int j = 0; j < columns; ++j) {
        sum += j >= lo && j <= hi ? vector_exp(blended(window, columns, j)) : 0.0f;
      }
      norm = std::log(sum);
    }
    const float log_floor = table.log_floor;
#pragma omp simd
    for (int j = 0; j < columns; ++j) {
      const float v = blended(window, columns, j) - norm;
      log_t[j] = j >= lo && j <= hi && v > log_floor ? v : log_floor;
    }
  }
};

// sum_j q_j (log t_j - floor) over the window, q not normalised.
float cross_term(const PixelRow& row, const DpmTableView& table, int first) {
  const float *q = row.q + first, *log_t = row.log_t, log_floor = table.log_floor;
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int j = 0; j < table.columns; ++j) sum += q[j] * (log_t[j] - log_floor);
  return sum;
}

// The published direction: kl, and sum_j q_j g_j in `pull`.
float teacher_student(const PixelRow& row, const DpmTableView& table, int first, float lse, float eps, float* pull) {
  const float *x = row.x + first, *log_t = row.log_t, log_floor = table.log_floor;
  float kl = 0, sum = 0;
  if (eps == 0.0f) {
#pragma omp simd reduction(+ : kl, sum)
    for (int j = 0; j < table.columns; ++j) {
      const float t = log_t[j] > log_floor ? vector_exp(log_t[j]) : 0.0f;
      const float log_q = t > 0.0f ? x[j] - lse : 0.0f;
      kl += t * (log_t[j] - log_q);
      sum -= t;
    }
  } else {
#pragma omp simd reduction(+ : kl, sum)
    for (int j = 0; j < table.columns; ++j) {
      const float log_q = x[j] - lse, q = vector_exp(log_q);
      const float t = log_t[j] > log_floor ? vector_exp(log_t[j]) : 0.0f;
      kl += log_q < kLogZero ? 0.0f : t * vector_log(t / (q + eps) + eps);
      sum -= q * t * t / ((q + eps) * (t + eps * (q + eps)));
    }
  }
  *pull = sum;
  return kl;
}

// Depth, lse and offset of one pixel; returns its kl.
template <class T>
float forward_pixel(const PixelRow& row, const DpmProblem& p, const T* logits, const float* teacher, float* depth,
                    float* lse, float* offset) {
  const float largest = row.load(logits);
  const float* x = row.x;
  float* q = row.q;
  float sum = 0, first_moment = 0, log_moment = 0;
#pragma omp simd reduction(+ : sum, first_moment, log_moment)
  for (int b = 0; b < row.padded; ++b) {
    const float z = x[b] - largest, e = vector_exp(z);
    q[b] = e;
    sum += e;
    first_moment += e * static_cast<float>(b);
    log_moment += e * z;
  }
  const float log_sum = std::log(sum);
  *lse = largest + log_sum;
  *depth = static_cast<float>(p.bins.centre(0)) + static_cast<float>(p.bins.width()) * (first_moment / sum);
  if (teacher == nullptr) return 0.0f;

  const DpmWindow window = locate(p.table, row.bins, *teacher);
  row.fill_target(p.table, window);
  float kl;
  if (p.options.kl == KlDirection::kStudentTeacher) {
    kl = (log_moment - cross_term(row, p.table, window.first)) / sum - log_sum - p.table.log_floor;
    *offset = kl;
  } else {
    kl = teacher_student(row, p.table, window.first, *lse, p.options.eps, offset);
    kl += 0.0f * sum;  // NaN logits outside the window count too
  }
  return kl + 0.0f * *teacher;  // as does a teacher that is not finite
}

// One pixel's gradient depends on these besides its logits; a = 0: not on the target.
struct PixelGradient {
  float teacher, depth, lse, offset;
  float a, gd;  // factors of dkl/dx and dd/dx
};

// Replaces one pixel's logits by a * dkl/dx + gd * dd/dx.
template <class T>
void backward_pixel(const PixelRow& row, const DpmProblem& problem, const PixelGradient& g, T* logits) {
  const DpmTableView& table = problem.table;
  const float a = g.a, lse = g.lse;
  row.load(logits);
  const float *x = row.x, width = static_cast<float>(problem.bins.width());
  float *q = row.q, *out = row.out;
  const bool student_teacher = problem.options.kl == KlDirection::kStudentTeacher;
  const float log_factor = student_teacher ? a : 0.0f, step = g.gd * width;
  const float constant = (student_teacher ? -a * (table.log_floor + g.offset) : -a * g.offset) -
                         g.gd * (g.depth - static_cast<float>(problem.bins.centre(0)));
#pragma omp simd
  for (int b = 0; b < row.padded; ++b) {
    const float z = x[b] - lse, p = vector_exp(z);
    q[b] = p;
    out[b] = p * (log_factor * z + (step * static_cast<float>(b) + constant));
  }
  if (a != 0.0f) {
    const DpmWindow window = locate(table, row.bins, g.teacher);
    row.fill_target(table, window);
    const float *log_t = row.log_t, log_floor = table.log_floor, eps = problem.options.eps;
    q += window.first;
    out += window.first;
    if (student_teacher) {
#pragma omp simd
      for (int j = 0; j < table.columns; ++j) out[j] -= a * q[j] * (log_t[j] - log_floor);
    } else if (eps == 0.0f) {
#pragma omp simd
      for (int j = 0; j < table.columns; ++j) out[j] -= log_t[j] > log_floor ? a * vector_exp(log_t[j]) : 0.0f;
    } else {
#pragma omp simd
      for (int j = 0; j < table.columns; ++j) {
        const float t = log_t[j] > log_floor ? vector_exp(log_t[j]) : 0.0f;
        out[j] -= a * q[j] * t * t / ((q[j] + eps) * (t + eps * (q[j] + eps)));
      }
    }
  }
  row.store(logits);
}

}  // namespace

template <class T>
void dpm_rows(Stream stream, const DpmProblem& p, RowRange rows, const T* logits, const float* teacher,
              const DpmMaps& maps, double* row_sums) {
  const DpmShape& shape = p.shape;
  const int guard = teacher != nullptr ? p.table.columns : 0;
  const size_t row_floats = PixelRow::floats(p.bins.bins, guard);
  auto* buffers =
      static_cast<float*>(stream.scratch->get(static_cast<size_t>(num_threads()) * row_floats * sizeof(float)));
  parallel_ranges(rows.count(), 1, [&](int64_t begin, int64_t end, int part) {
    const FlushDenormals flush;
    const PixelRow row(p.bins.bins, guard, buffers + static_cast<size_t>(part) * row_floats);
    for (int64_t r = rows.begin + begin; r < rows.begin + end; ++r) {
      double sum = 0, count = 0;
      for (int64_t i = r * shape.W; i < (r + 1) * shape.W; ++i) {
        const bool counts = teacher != nullptr && dpm_counts(p.bins, p.options, r % shape.H, teacher[i]);
        float pull = 0;
        const float kl = forward_pixel(row, p, logits + (i - rows.begin * shape.W) * shape.channels,
                                       counts ? teacher + i : nullptr, maps.depth + i, maps.lse + i, &pull);
        if (maps.offset != nullptr) maps.offset[i] = pull;
        sum += static_cast<double>(kl);
        count += counts;
      }
      if (row_sums == nullptr) continue;
      row_sums[2 * r] = sum;
      row_sums[2 * r + 1] = count;
    }
  });
}

void dpm_finish(int64_t rows, const double* row_sums, float* result) {
  double sum = 0, count = 0;
  for (int64_t r = 0; r < rows; ++r) {
    sum += row_sums[2 * r];
    count += row_sums[2 * r + 1];
  }
  assign_mean(sum, count, result);
}

template <class T>
void dpm(Stream stream, const DpmProblem& problem, const T* logits, const float* teacher, const DpmMaps& maps) {
  const int64_t rows = problem.shape.N * problem.shape.H;
  std::vector<double> row_sums(teacher != nullptr ? static_cast<size_t>(2 * rows) : 0);
  dpm_rows(stream, problem, {0, rows}, logits, teacher, maps, teacher != nullptr ? row_sums.data() : nullptr);
  if (teacher != nullptr) dpm_finish(rows, row_sums.data(), maps.result);
}

template <class T>
void dpm_grad_rows(Stream stream, const DpmProblem& p, RowRange rows, const DpmGradientMaps& maps, T* logits) {
  const DpmShape& shape = p.shape;
  const int guard = maps.dkl != nullptr ? p.table.columns : 0;
  const size_t row_floats = PixelRow::floats(p.bins.bins, guard);
  const float per_pixel = maps.per_pixel();
  auto* buffers =
      static_cast<float*>(stream.scratch->get(static_cast<size_t>(num_threads()) * row_floats * sizeof(float)));
  parallel_ranges(rows.count(), 1, [&](int64_t begin, int64_t end, int part) {
    const FlushDenormals flush;
    const PixelRow row(p.bins.bins, guard, buffers + static_cast<size_t>(part) * row_floats);
    T* pixel = logits + begin * shape.W * shape.channels;
    for (int64_t i = (rows.begin + begin) * shape.W; i < (rows.begin + end) * shape.W; ++i, pixel += shape.channels) {
      const bool counts = maps.dkl != nullptr && dpm_counts(p.bins, p.options, i / shape.W % shape.H, maps.teacher[i]);
      const float a = counts ? per_pixel : 0.0f, gd = maps.ddepth != nullptr ? maps.ddepth[i] : 0.0f;
      if (a == 0.0f && gd == 0.0f) {
        std::fill(pixel, pixel + shape.channels, T(0.0f));
        continue;
      }
      const PixelGradient gradient{
          counts ? maps.teacher[i] : 0.0f, maps.depth[i], maps.lse[i], counts ? maps.offset[i] : 0.0f, a, gd};
      backward_pixel(row, p, gradient, pixel);
      std::fill(pixel + p.bins.bins, pixel + shape.channels, T(0.0f));
    }
  });
}

template <class T>
void dpm_grad(Stream stream, const DpmProblem& problem, const DpmGradientMaps& maps, T* logits) {
  dpm_grad_rows(stream, problem, {0, problem.shape.N * problem.shape.H}, maps, logits);
}

#define DS_INSTANTIATE(T)                                                                                       \
  template void dpm(Stream, const DpmProblem&, const T*, const float*, const DpmMaps&);                         \
  template void dpm_grad(Stream, const DpmProblem&, const DpmGradientMaps&, T*);                                \
  template void dpm_rows(Stream, const DpmProblem&, RowRange, const T*, const float*, const DpmMaps&, double*); \
  template void dpm_grad_rows(Stream, const DpmProblem&, RowRange, const DpmGradientMaps&, T*);
DS_INSTANTIATE(float)
DS_INSTANTIATE(bf16)
#undef DS_INSTANTIATE

}  // namespace depthstill::cpu
