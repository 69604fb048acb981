#include "kernels/core/pack.cuh"
#include "kernels/dpm/dpm.cuh"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarpSize;
constexpr int kSumBlocks = 2048;  // partial sums: fixed, so that the order of addition is the same on every GPU
// Lanes of a pixel: of 257 bins each has 32 or 33. A warp's instruction serves 4 pixels; with a pixel to a warp, the
// sums over its lanes and the window, of which few lanes have a bin, would take longer than memory.
constexpr int kLanes = 8, kPixels = kWarpSize / kLanes;

// A lane's share of a pixel's bins: packs of N, each lane's kLanes packs apart, of which the first stay in
// registers; then one by one the bins that do not fill a pack, so that 257 bins cost four packs of bf16 and one
// element.
template <class T, int N>
class Share {
 public:
  __device__ __forceinline__ Share(const T* pixel, int bins, int lane)
      : pixel_(pixel), bins_(bins), lane_(lane), full_(bins / N * N) {
#pragma unroll
    for (int r = 0; r < kResident; ++r) {
      if (bin(r) < full_) packs_[r] = load_words<N>(pixel + bin(r));
    }
  }
  // f(first, values) for every pack, and for every bin of the rest as an array of one.
  template <class F>
  __device__ __forceinline__ void each(const F& f) const {
    for_packs(f);
    for (int b = full_ + lane_; b < bins_; b += kLanes) {
      const float values[1] = {static_cast<float>(pixel_[b])};
      f(b, values);
    }
  }
  // Writes f(first, values, results) in place, and 0 to the padding channels.
  template <class F>
  __device__ __forceinline__ void replace(T* pixel, int64_t channels, const F& f) const {
    for_packs([&](int b, const float(&values)[N]) {
      float results[N];
      f(b, values, results);
      store_floats(pixel + b, results);
    });
    for (int64_t b = full_ + lane_; b < channels; b += kLanes) {
      float result[1] = {0.0f};
      if (b < bins_) {
        const float values[1] = {static_cast<float>(pixel_[b])};
        f(static_cast<int>(b), values, result);
      }
      pixel[b] = static_cast<T>(result[0]);
    }
  }

 private:
  static constexpr int kResident = N == 1 ? 4 : 32 / N;

  __device__ __forceinline__ int bin(int round) const { return (round * kLanes + lane_) * N; }

  template <class F>
  __device__ __forceinline__ void for_packs(const F& f) const {
#pragma unroll
    for (int r = 0; r < kResident; ++r) {
      if (bin(r) >= full_) continue;
      float values[N];
      to_floats<T>(packs_[r], values);
      f(bin(r), values);
    }
#pragma unroll 1
    for (int r = kResident; bin(r) < full_; ++r) {
      float values[N];
      load_floats(pixel_ + bin(r), values);
      f(bin(r), values);
    }
  }

  const T* pixel_;
  int bins_, lane_, full_;
  Words<T, N> packs_[kResident] = {};
};

// f(column, log t, logit) for a lane's columns of a pixel's window, three of which are loaded at once.
template <class T, class F>
__device__ __forceinline__ void for_window(const DpmProblem& p, const DpmWindow& window, float norm, const T* pixel,
                                           int lane, const F& f) {
  constexpr int kAtOnce = 3;
  const int columns = p.table.columns, last_bin = p.bins.bins - 1;
#pragma unroll 1
  for (int begin = lane; begin < columns; begin += kAtOnce * kLanes) {
    float log_t[kAtOnce], logit[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const int j = begin + k * kLanes < columns ? begin + k * kLanes : columns - 1, bin = window.first + j;
      log_t[k] = log_target(p.table, window, norm, j);
      logit[k] = static_cast<float>(pixel[bin < 0 ? 0 : (bin > last_bin ? last_bin : bin)]);
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      if (begin + k * kLanes < columns) f(begin + k * kLanes, log_t[k], logit[k]);
    }
  }
}

// Eight lanes per pixel, blocks of 32 groups, each of which strides over the pixels. depth, lse and offset (dpm.h) and
// per block {sum of kl, counted pixels} in partials (blocks, 2). Reads the row once, but for the window's logits, which
// come from L1: 4 or 2 B per channel, and 16 B of maps. Bound: memory, 38 clocks of an H100's SM per pixel of 264 bf16
// channels, in which it can issue 150 warp instructions; this takes about as many. N > 1 requires channels % N == 0 and
// aligned logits.
template <class T, int N, bool kStudentTeacher>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 2 ? 3 : 2)
    dpm_kernel(DpmProblem p, const T* logits, const float* teacher, DpmMaps maps, double* partials) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes, bins = p.bins.bins;
  const int64_t pixels = p.shape.N * p.shape.H * p.shape.W, stride = static_cast<int64_t>(gridDim.x) * kWarps * kPixels;
  const int64_t warp_first = (static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize) * kPixels;
  const float first_centre = static_cast<float>(p.bins.centre(0)), width = static_cast<float>(p.bins.width());
  double sums[2] = {0, 0};
  for (int64_t first = warp_first; first < pixels; first += stride) {
    const int64_t own = first + static_cast<int>(threadIdx.x) % kWarpSize / kLanes;
    const bool inside = own < pixels;
    const int64_t i = inside ? own : pixels - 1;  // all lanes take part in the sums
    const T* pixel = logits + i * p.shape.channels;
    const Share<T, N> share(pixel, bins, lane);
    float largest = -INFINITY;
    share.each([&]<int M>(int, const float(&x)[M]) {
#pragma unroll
      for (int k = 0; k < M; ++k) largest = fmaxf(largest, x[k]);
    });
    largest = warp_reduce<kLanes>(largest, Max{});
    const float largest2 = largest * kLog2E;
    float sum = 0.0f, moment = 0.0f, log_moment = 0.0f;
    share.each([&]<int M>(int b, const float(&x)[M]) {
      float pack_sum = 0.0f, pack_moment = 0.0f;
#pragma unroll
      for (int k = 0; k < M; ++k) {
        const float e = fast_exp2(x[k] * kLog2E - largest2);
        pack_sum += e;
        pack_moment += e * static_cast<float>(k);
        if constexpr (kStudentTeacher) log_moment += e * (x[k] - largest);
      }
      sum += pack_sum;
      moment += pack_moment + static_cast<float>(b) * pack_sum;
    });
    sum = warp_reduce<kLanes>(sum, Sum{});
    moment = warp_reduce<kLanes>(moment, Sum{});
    const float log_sum = logf(sum), lse = largest + log_sum;
    float kl = 0.0f, pull = 0.0f;
    bool counted = false;
    if (teacher != nullptr) {
      const float depth = teacher[i];
      counted = inside && pixel_counts(p, teacher, i);
      const DpmWindow window = locate(p.table, bins, depth);
      const float norm = target_norm<kLanes>(p.table, window, lane);
      for_window(p, window, norm, pixel, lane,
                 [&](int, float log_t, float logit) { add_kl(p, log_t, logit - lse, &kl, &pull); });
      if constexpr (kStudentTeacher) kl += log_moment * fast_inverse(sum);
      kl = warp_reduce<kLanes>(kl, Sum{}) + 0.0f * (sum + depth);  // a NaN logit or teacher shows outside the window
      if constexpr (kStudentTeacher) kl -= log_sum + p.table.log_floor;
      pull = kStudentTeacher ? kl : warp_reduce<kLanes>(pull, Sum{});
    }
    if (lane == 0 && inside) {
      maps.depth[i] = first_centre + width * (moment * fast_inverse(sum));
      maps.lse[i] = lse;
      if (maps.offset != nullptr) maps.offset[i] = counted ? pull : 0.0f;
      sums[0] += counted ? static_cast<double>(kl) : 0.0;
      sums[1] += counted ? 1 : 0;
    }
  }
  store_partials<kThreads>(sums, blockIdx.x, partials);
}

// Lanes and pixels as above. Logits become their gradient in place; dynamic shared memory: kWarps * kPixels * columns
// floats for what the target's windows add, as the rest of the formula has no target in it. Per pixel 8 or 4 B per
// channel and 20 B of maps. Bound: memory. Same preconditions for N > 1. The maps are no struct here:
// with one, nvcc 13.0 makes the fp32 kernel spill.
template <class T, int N, bool kStudentTeacher>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 2 ? 3 : 2)
    dpm_grad_kernel(DpmProblem p, const float* teacher, const float* depth, const float* lse, const float* offset,
                    const float* result, const float* dkl, const float* ddepth, T* logits) {
  DYNAMIC_SHARED(float, shared);
  const int lane = static_cast<int>(threadIdx.x) % kLanes, group = static_cast<int>(threadIdx.x) / kLanes;
  const int columns = p.table.columns, bins = p.bins.bins;
  float* terms = shared + group * columns;
  const int64_t pixels = p.shape.N * p.shape.H * p.shape.W, stride = static_cast<int64_t>(gridDim.x) * kWarps * kPixels;
  const int64_t warp_first = (static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize) * kPixels;
  const float first_centre = static_cast<float>(p.bins.centre(0)), width = static_cast<float>(p.bins.width());
  const float per_pixel = dkl != nullptr ? *dkl * result[1] : 0.0f;
  for (int64_t first = warp_first; first < pixels; first += stride) {
    const int64_t own = first + static_cast<int>(threadIdx.x) % kWarpSize / kLanes;
    const bool inside = own < pixels;
    const int64_t i = inside ? own : pixels - 1;  // all lanes take part in the sums, but the logits are their owner's
    T* pixel = logits + i * p.shape.channels;
    const Share<T, N> share(pixel, bins, inside ? lane : bins);  // a lane from `bins` on has none; 0 bins spill
    const float a = inside && dkl != nullptr && pixel_counts(p, teacher, i) ? per_pixel : 0.0f;
    const float gd = ddepth != nullptr ? ddepth[i] : 0.0f, l = lse[i];
    float constant = -gd * (depth[i] - first_centre);
    int begin = bins, end = bins;  // range of the window's bins
    if (dkl != nullptr) {
      const DpmWindow window = locate(p.table, bins, teacher[i]);
      const float norm = target_norm<kLanes>(p.table, window, lane);
      if (a != 0.0f) {
        for_window(p, window, norm, pixel, lane,
                   [&](int j, float log_t, float logit) { terms[j] = kl_gradient(p, log_t, fast_exp(logit - l), a); });
        begin = window.first;
        end = window.first + columns;
        constant -= a * (kStudentTeacher ? p.table.log_floor + offset[i] : offset[i]);
      }
    }
    __syncwarp();  // terms are complete, and every lane has read its logits of the window
    const float step = gd * width;
    const auto gradient = [&]<int M>(int b, const float(&x)[M], float(&dx)[M]) {
      const float at_b = step * static_cast<float>(b) + constant;
#pragma unroll
      for (int k = 0; k < M; ++k) {
        const float z = x[k] - l;  // as for the window's terms, which cancel much of this
        float factor = step * static_cast<float>(k) + at_b;
        if constexpr (kStudentTeacher) factor += a * z;
        dx[k] = fast_exp(z) * factor;
      }
      if (b >= end || b + M <= begin) return;
#pragma unroll
      for (int k = 0; k < M; ++k) {
        if (b + k >= begin && b + k < end) dx[k] += terms[b + k - begin];
      }
    };
    if (inside && (a != 0.0f || gd != 0.0f)) share.replace(pixel, p.shape.channels, gradient);
    if (inside && a == 0.0f && gd == 0.0f) {
      for (int64_t b = lane; b < p.shape.channels; b += kLanes) pixel[b] = static_cast<T>(0.0f);
    }
    __syncwarp();  // before the next pixels' terms
  }
}

int grid_for(const DpmShape& shape) {
  return static_cast<int>(blocks_for(shape.N * shape.H * shape.W, kWarps * kPixels, kSumBlocks));
}

// Calls f.operator()<N, kStudentTeacher>(): packs where sizes and pointers allow.
template <class T, class F>
void visit_kernel(const DpmProblem& problem, const T* logits, const F& f) {
  constexpr int kPack = kPackSize<T>;
  visit_pack<kPack>(packable<kPack>(problem.shape.channels, logits), [&]<int N>() {
    if (problem.options.kl == KlDirection::kStudentTeacher) {
      f.template operator()<N, true>();
    } else {
      f.template operator()<N, false>();
    }
  });
}

}  // namespace

template <class T>
void dpm(Stream stream, const DpmProblem& problem, const T* logits, const float* teacher, const DpmMaps& maps) {
  const int blocks = grid_for(problem.shape);
  double* partials = nullptr;
  if (teacher != nullptr) {
    partials = static_cast<double*>(stream.scratch->get(static_cast<size_t>(blocks) * 2 * sizeof(double)));
  }
  visit_kernel(problem, logits, [&]<int N, bool kStudentTeacher>() {
    launch(dpm_kernel<T, N, kStudentTeacher>, static_cast<unsigned>(blocks), kThreads, 0, stream, problem, logits,
           teacher, maps, partials);
  });
  if (teacher != nullptr) finish_partials<2>(stream, blocks, partials, FinishDpm{maps.result});
}

template <class T>
void dpm_grad(Stream stream, const DpmProblem& problem, const DpmGradientMaps& maps, T* logits) {
  const size_t shared_bytes =
      maps.dkl != nullptr ? static_cast<size_t>(kWarps * kPixels * problem.table.columns) * sizeof(float) : 0;
  visit_kernel(problem, logits, [&]<int N, bool kStudentTeacher>() {
    launch(dpm_grad_kernel<T, N, kStudentTeacher>, static_cast<unsigned>(grid_for(problem.shape)), kThreads,
           shared_bytes, stream, problem, maps.teacher, maps.depth, maps.lse, maps.offset, maps.result, maps.dkl,
           maps.ddepth, logits);
  });
}

#define DS_INSTANTIATE(T)                                                               \
  template void dpm(Stream, const DpmProblem&, const T*, const float*, const DpmMaps&); \
  template void dpm_grad(Stream, const DpmProblem&, const DpmGradientMaps&, T*);
DS_INSTANTIATE(float)
DS_INSTANTIATE(bf16)
#undef DS_INSTANTIATE

}  // namespace depthstill::cuda
