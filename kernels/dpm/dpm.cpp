#include "kernels/dpm/dpm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/core/denormals.h"
#include "kernels/core/lanes.h"
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
float forward_pixel(const PixelRow& row, const DpmBins& bins, const DpmOptions& options, const DpmTableView& table,
                    const T* logits, const float* teacher, float* depth, float* lse, float* offset) {
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
  *depth = static_cast<float>(bins.centre(0)) + static_cast<float>(bins.width()) * (first_moment / sum);
  if (teacher == nullptr) return 0.0f;

  const DpmWindow window = locate(table, row.bins, *teacher);
  row.fill_target(table, window);
  float kl;
  if (options.kl == KlDirection::kStudentTeacher) {
    kl = (log_moment - cross_term(row, table, window.first)) / sum - log_sum - table.log_floor;
    *offset = kl;
  } else {
    kl = teacher_student(row, table, window.first, *lse, options.eps, offset);
    kl += 0.0f * sum;  // NaN logits outside the window count too
  }
  return kl + 0.0f * *teacher;  // as does a teacher that is not finite
}

// Replaces one pixel's logits by a * dkl/dx + gd * dd/dx.
template <class T>
void backward_pixel(const PixelRow& row, const DpmBins& bins, const DpmOptions& options, const DpmTableView& table,
                    float teacher, float depth, float lse, float offset, float a, float gd, T* logits) {
  row.load(logits);
  const float *x = row.x, width = static_cast<float>(bins.width());
  float *q = row.q, *out = row.out;
  const bool student_teacher = options.kl == KlDirection::kStudentTeacher;
  const float log_factor = student_teacher ? a : 0.0f, step = gd * width;
  const float constant = (student_teacher ? -a * (table.log_floor + offset) : -a * offset) -
                         gd * (depth - static_cast<float>(bins.centre(0)));
#pragma omp simd
  for (int b = 0; b < row.padded; ++b) {
    const float z = x[b] - lse, p = vector_exp(z);
    q[b] = p;
    out[b] = p * (log_factor * z + (step * static_cast<float>(b) + constant));
  }
  if (a != 0.0f) {
    const DpmWindow window = locate(table, row.bins, teacher);
    row.fill_target(table, window);
    const float *log_t = row.log_t, log_floor = table.log_floor, eps = options.eps;
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
void dpm_rows(Stream stream, const DpmShape& shape, const DpmBins& bins, const DpmOptions& options,
              const DpmTableView& table, RowRange rows, const T* logits, const float* teacher, float* depth, float* lse,
              float* offset, double* row_sums) {
  const int guard = teacher != nullptr ? table.columns : 0;
  const size_t row_floats = PixelRow::floats(bins.bins, guard);
  auto* buffers =
      static_cast<float*>(stream.scratch->get(static_cast<size_t>(num_threads()) * row_floats * sizeof(float)));
  parallel_ranges(rows.count(), 1, [&](int64_t begin, int64_t end, int part) {
    const FlushDenormals flush;
    const PixelRow row(bins.bins, guard, buffers + static_cast<size_t>(part) * row_floats);
    for (int64_t r = rows.begin + begin; r < rows.begin + end; ++r) {
      double sum = 0, count = 0;
      for (int64_t i = r * shape.W; i < (r + 1) * shape.W; ++i) {
        const bool counts = teacher != nullptr && dpm_counts(bins, options, r % shape.H, teacher[i]);
        float pull = 0;
        const float kl = forward_pixel(row, bins, options, table, logits + (i - rows.begin * shape.W) * shape.channels,
                                       counts ? teacher + i : nullptr, depth + i, lse + i, &pull);
        if (offset != nullptr) offset[i] = pull;
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
  result[0] = count > 0 ? static_cast<float>(sum / count) : 0.0f;
  result[1] = count > 0 ? static_cast<float>(1 / count) : 0.0f;
}

template <class T>
void dpm(Stream stream, const DpmShape& shape, const DpmBins& bins, const DpmOptions& options,
         const DpmTableView& table, const T* logits, const float* teacher, float* depth, float* lse, float* offset,
         float* result) {
  const int64_t rows = shape.N * shape.H;
  std::vector<double> row_sums(teacher != nullptr ? static_cast<size_t>(2 * rows) : 0);
  dpm_rows(stream, shape, bins, options, table, {0, rows}, logits, teacher, depth, lse, offset,
           teacher != nullptr ? row_sums.data() : nullptr);
  if (teacher != nullptr) dpm_finish(rows, row_sums.data(), result);
}

template <class T>
void dpm_grad_rows(Stream stream, const DpmShape& shape, const DpmBins& bins, const DpmOptions& options,
                   const DpmTableView& table, RowRange rows, const float* teacher, const float* depth, const float* lse,
                   const float* offset, const float* result, const float* dkl, const float* ddepth, T* logits) {
  const int guard = dkl != nullptr ? table.columns : 0;
  const size_t row_floats = PixelRow::floats(bins.bins, guard);
  const float per_pixel = dkl != nullptr ? *dkl * result[1] : 0.0f;
  auto* buffers =
      static_cast<float*>(stream.scratch->get(static_cast<size_t>(num_threads()) * row_floats * sizeof(float)));
  parallel_ranges(rows.count(), 1, [&](int64_t begin, int64_t end, int part) {
    const FlushDenormals flush;
    const PixelRow row(bins.bins, guard, buffers + static_cast<size_t>(part) * row_floats);
    T* pixel = logits + begin * shape.W * shape.channels;
    for (int64_t i = (rows.begin + begin) * shape.W; i < (rows.begin + end) * shape.W; ++i, pixel += shape.channels) {
      const bool counts = dkl != nullptr && dpm_counts(bins, options, i / shape.W % shape.H, teacher[i]);
      const float a = counts ? per_pixel : 0.0f, gd = ddepth != nullptr ? ddepth[i] : 0.0f;
      if (a == 0.0f && gd == 0.0f) {
        std::fill(pixel, pixel + shape.channels, T(0.0f));
        continue;
      }
      backward_pixel(row, bins, options, table, counts ? teacher[i] : 0.0f, depth[i], lse[i], counts ? offset[i] : 0.0f,
                     a, gd, pixel);
      std::fill(pixel + bins.bins, pixel + shape.channels, T(0.0f));
    }
  });
}

template <class T>
void dpm_grad(Stream stream, const DpmShape& shape, const DpmBins& bins, const DpmOptions& options,
              const DpmTableView& table, const float* teacher, const float* depth, const float* lse,
              const float* offset, const float* result, const float* dkl, const float* ddepth, T* logits) {
  dpm_grad_rows(stream, shape, bins, options, table, {0, shape.N * shape.H}, teacher, depth, lse, offset, result, dkl,
                ddepth, logits);
}

template void dpm(Stream, const DpmShape&, const DpmBins&, const DpmOptions&, const DpmTableView&, const float*,
                  const float*, float*, float*, float*, float*);
template void dpm(Stream, const DpmShape&, const DpmBins&, const DpmOptions&, const DpmTableView&, const bf16*,
                  const float*, float*, float*, float*, float*);
template void dpm_grad(Stream, const DpmShape&, const DpmBins&, const DpmOptions&, const DpmTableView&, const float*,
                       const float*, const float*, const float*, const float*, const float*, const float*, float*);
template void dpm_grad(Stream, const DpmShape&, const DpmBins&, const DpmOptions&, const DpmTableView&, const float*,
                       const float*, const float*, const float*, const float*, const float*, const float*, bf16*);
template void dpm_rows(Stream, const DpmShape&, const DpmBins&, const DpmOptions&, const DpmTableView&, RowRange,
                       const float*, const float*, float*, float*, float*, double*);
template void dpm_rows(Stream, const DpmShape&, const DpmBins&, const DpmOptions&, const DpmTableView&, RowRange,
                       const bf16*, const float*, float*, float*, float*, double*);
template void dpm_grad_rows(Stream, const DpmShape&, const DpmBins&, const DpmOptions&, const DpmTableView&, RowRange,
                            const float*, const float*, const float*, const float*, const float*, const float*,
                            const float*, float*);
template void dpm_grad_rows(Stream, const DpmShape&, const DpmBins&, const DpmOptions&, const DpmTableView&, RowRange,
                            const float*, const float*, const float*, const float*, const float*, const float*,
                            const float*, bf16*);

}  // namespace depthstill::cpu
