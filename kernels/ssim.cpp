#include "kernels/ssim.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/core/parallel.h"

// Each thread walks down its rows and keeps the last 11 horizontally filtered rows of five moments and of the three
// maps that make up the gradient.
namespace depthstill::cpu {
namespace {

constexpr int kMoments = 5, kMaps = 3;
using Taps = std::array<double, kSsimWindow>;

Taps gaussian_taps() {
  Taps taps;
  double sum = 0;
  for (int k = 0; k < kSsimWindow; ++k) {
    const double distance = (k - kSsimRadius) / kSsimStd;
    taps[static_cast<size_t>(k)] = std::exp(-distance * distance / 2);
    sum += taps[static_cast<size_t>(k)];
  }
  for (double& tap : taps) tap /= sum;
  return taps;
}

// out[w] = sum_k taps[k] * in[w + k]
void filter_row(const Taps& taps, int64_t width, const double* in, double* out) {
#pragma omp simd
  for (int64_t w = 0; w < width; ++w) {
    double sum = 0;
    for (size_t k = 0; k < kSsimWindow; ++k) sum += taps[k] * in[w + static_cast<int64_t>(k)];
    out[w] = sum;
  }
}

// The last 11 filtered rows of one map; rows outside the image are zero.
class RowRing {
 public:
  RowRing(int64_t width, double* memory) : width_(width), rows_(memory), zeros_(memory + kSsimWindow * width) {
    std::fill(zeros_, zeros_ + width, 0.0);
  }
  static int64_t doubles(int64_t width) { return (kSsimWindow + 1) * width; }

  double* row(int64_t r) { return rows_ + (r % kSsimWindow) * width_; }

  // out[w] = sum_k taps[k] * row(centre - 5 + k)[w], over the rows in [0, height)
  void filter_columns(const Taps& taps, int64_t centre, int64_t height, double* out) {
    std::array<const double*, kSsimWindow> in;
    for (int k = 0; k < kSsimWindow; ++k) {
      const int64_t r = centre - kSsimRadius + k;
      in[static_cast<size_t>(k)] = r >= 0 && r < height ? row(r) : zeros_;
    }
#pragma omp simd
    for (int64_t w = 0; w < width_; ++w) {
      double sum = 0;
      for (size_t k = 0; k < kSsimWindow; ++k) sum += taps[k] * in[k][w];
      out[w] = sum;
    }
  }

 private:
  int64_t width_;
  double *rows_, *zeros_;
};

class RowWalk {
 public:
  static int64_t doubles(int64_t width) {
    return (kMoments + kMaps) * (width + 2 * kSsimRadius + RowRing::doubles(width)) + kMoments * width;
  }

  RowWalk(const Taps& taps, int64_t width, int64_t height, SsimMode mode, bool mask, double* memory)
      : taps_(taps), width_(width), height_(height), mode_(mode), mask_(mask) {
    const int64_t padded = width + 2 * kSsimRadius;
    std::fill(memory, memory + (kMoments + kMaps) * padded, 0.0);
    for (int m = 0; m < kMoments; ++m, memory += padded) products_[m] = memory;
    for (int m = 0; m < kMaps; ++m, memory += padded) maps_[m] = memory;
    for (int m = 0; m < kMoments; ++m, memory += width) moments_[m] = memory;
    for (int m = 0; m < kMoments; ++m, memory += RowRing::doubles(width)) moment_rings_.emplace_back(width, memory);
    for (int m = 0; m < kMaps; ++m, memory += RowRing::doubles(width)) map_rings_.emplace_back(width, memory);
  }

  // Rows [begin, end) of one cropped image: gradient (unless null), and per row the sum of S and the counted pixels.
  void walk(int64_t begin, int64_t end, const float* x, const float* y, float* gradient, double* sums) {
    const int64_t reach = gradient != nullptr ? kSsimRadius : 0;
    const int64_t first = std::max<int64_t>(begin - reach, 0), last = std::min(end + reach, height_);
    int64_t next_input = std::max<int64_t>(first - kSsimRadius, 0);
    for (int64_t r = first; r < last; ++r) {
      for (; next_input < std::min(r + kSsimRadius + 1, height_); ++next_input) {
        add_input_row(next_input, x + next_input * width_, y + next_input * width_);
      }
      for (size_t m = 0; m < kMoments; ++m) moment_rings_[m].filter_columns(taps_, r, height_, moments_[m]);
      similarity_row(y + r * width_, r >= begin && r < end ? sums + 2 * r : nullptr);
      if (gradient == nullptr) continue;
      for (size_t m = 0; m < kMaps; ++m) filter_row(taps_, width_, maps_[m], map_rings_[m].row(r));
      // Row g of the gradient needs the maps up to row g + 5, or up to the last one.
      if (r - reach >= begin) gradient_row(r - reach, x, y, gradient);
      if (r == height_ - 1) {
        for (int64_t g = std::max(begin, r - reach + 1); g < end; ++g) gradient_row(g, x, y, gradient);
      }
    }
  }

 private:
  bool counts(float target) const { return !mask_ || valid_depth(target); }

  void add_input_row(int64_t r, const float* x, const float* y) {
    double *px = products_[0] + kSsimRadius, *py = products_[1] + kSsimRadius, *pxx = products_[2] + kSsimRadius;
    double *pyy = products_[3] + kSsimRadius, *pxy = products_[4] + kSsimRadius;
#pragma omp simd
    for (int64_t w = 0; w < width_; ++w) {
      const bool in = counts(y[w]);
      const double u = in ? static_cast<double>(x[w]) : 0.0, v = in ? static_cast<double>(y[w]) : 0.0;
      px[w] = u;
      py[w] = v;
      pxx[w] = u * u;
      pyy[w] = v * v;
      pxy[w] = u * v;
    }
    for (size_t m = 0; m < kMoments; ++m) filter_row(taps_, width_, products_[m], moment_rings_[m].row(r));
  }

  // S of a row from its moments into sums (unless null), and its a - 2 b mx - k my, b and k.
  void similarity_row(const float* y, double* sums) {
    const double *mxs = moments_[0], *mys = moments_[1], *xxs = moments_[2], *yys = moments_[3], *xys = moments_[4];
    double *first = maps_[0] + kSsimRadius, *bs = maps_[1] + kSsimRadius, *ks = maps_[2] + kSsimRadius;
    const bool absolute = mode_ == SsimMode::kReference;
    double sum = 0, count = 0;
#pragma omp simd reduction(+ : sum, count)
    for (int64_t w = 0; w < width_; ++w) {
      const double mx = mxs[w], my = mys[w], raw = xys[w] - mx * my;
      // In double the variances are negative by rounding alone.
      const double raw_vx = xxs[w] - mx * mx, raw_vy = yys[w] - my * my;
      const double vx = raw_vx < 0 ? 0.0 : raw_vx, vy = raw_vy < 0 ? 0.0 : raw_vy;
      const double sign = absolute ? (raw > 0 ? 1.0 : (raw < 0 ? -1.0 : 0.0)) : 1.0;
      const double a1 = 2 * mx * my + kSsimC1, a2 = 2 * sign * raw + kSsimC2;
      const double b1 = mx * mx + my * my + kSsimC1, b2 = vx + vy + kSsimC2;
      const double per_b1 = 1 / b1, per_b2 = 1 / b2;
      const double s = a1 * a2 * per_b1 * per_b2;
      const double a = 2 * per_b1 * per_b2 * a2 * my - 2 * s * mx * per_b1;
      const double b = -s * per_b2, k = sign * 2 * a1 * per_b1 * per_b2;
      const double weight = counts(y[w]) ? 1.0 : 0.0;
      sum += weight * s;
      count += weight;
      first[w] = weight * (a - 2 * b * mx - k * my);
      bs[w] = weight * b;
      ks[w] = weight * k;
    }
    if (sums == nullptr) return;
    sums[0] = sum;
    sums[1] = count;
  }

  void gradient_row(int64_t r, const float* x, const float* y, float* gradient) {
    for (size_t m = 0; m < kMaps; ++m) map_rings_[m].filter_columns(taps_, r, height_, moments_[m]);
    const double *first = moments_[0], *b = moments_[1], *k = moments_[2];
    const float *xr = x + r * width_, *yr = y + r * width_;
    float* out = gradient + r * width_;
#pragma omp simd
    for (int64_t w = 0; w < width_; ++w) {
      const double d = first[w] + 2 * static_cast<double>(xr[w]) * b[w] + static_cast<double>(yr[w]) * k[w];
      out[w] = counts(yr[w]) ? static_cast<float>(d) : 0.0f;
    }
  }

  const Taps& taps_;
  int64_t width_, height_;
  SsimMode mode_;
  bool mask_;
  double *products_[kMoments], *maps_[kMaps], *moments_[kMoments];
  std::vector<RowRing> moment_rings_, map_rings_;
};

}  // namespace

void ssim(Stream stream, const DepthMapShape& shape, SsimMode mode, bool mask, const float* x, const float* y,
          float* gradient, float* result) {
  const Taps taps = gaussian_taps();
  const int64_t height = shape.H - shape.first_row, rows = shape.N * height, image = shape.H * shape.W;
  const int64_t walk_doubles = RowWalk::doubles(shape.W);
  const int64_t doubles = 2 * rows + num_threads() * walk_doubles;
  auto* sums = static_cast<double*>(stream.scratch->get(static_cast<size_t>(doubles) * sizeof(double)));
  parallel_ranges(rows, kSsimWindow, [&](int64_t begin, int64_t end, int part) {
    RowWalk walk(taps, shape.W, height, mode, mask, sums + 2 * rows + part * walk_doubles);
    while (begin < end) {
      const int64_t n = begin / height, stop = std::min(end, (n + 1) * height);
      const int64_t at = n * image + shape.first_row * shape.W;
      walk.walk(begin - n * height, stop - n * height, x + at, y + at, gradient != nullptr ? gradient + at : nullptr,
                sums + 2 * n * height);
      begin = stop;
    }
  });
  if (gradient != nullptr) {
    for (int64_t n = 0; n < shape.N; ++n) {
      std::fill(gradient + n * image, gradient + n * image + shape.first_row * shape.W, 0.0f);
    }
  }
  double sum = 0, count = 0;
  for (int64_t r = 0; r < rows; ++r) {
    sum += sums[2 * r];
    count += sums[2 * r + 1];
  }
  finish_ssim(sum, count, result);
}

void ssim_grad(Stream, int64_t n, const float* result, const float* dloss, float* gradient) {
  const float factor = -*dloss * result[1];
  parallel_ranges(n, 1 << 14, [&](int64_t begin, int64_t end, int) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) gradient[i] *= factor;
  });
}

}  // namespace depthstill::cpu
