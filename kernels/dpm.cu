#include "kernels/dpm.cuh"
#include "kernels/pack.cuh"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarpSize;
constexpr int kMaxBlocks = 2048;  // partial sums: fixed, so that the order of addition is the same on every GPU
struct PixelMaps {
  float *depth, *lse, *offset;  // (pixels)
};

// f(bin, value) for this lane's share of a pixel's bins: whole rounds of 32 packs of N, then one by one, so that 257
// bins cost one pack and one element.
template <int N, class T, class F>
__device__ void for_each_bin(const T* pixel, int bins, int lane, F f) {
  const int packed = N > 1 ? bins / (kWarpSize * N) * (kWarpSize * N) : 0;
  for (int b = lane * N; b < packed; b += kWarpSize * N) {
    float values[N];
    load_floats(pixel + b, values);
#pragma unroll
    for (int k = 0; k < N; ++k) f(b + k, values[k]);
  }
#pragma unroll 2
  for (int b = packed + lane; b < bins; b += kWarpSize) f(b, static_cast<float>(pixel[b]));
}

// value(bin, logit) over a lane's bins, written in place; the padding channels become 0.
template <int N, class T, class F>
__device__ void replace_bins(T* pixel, int bins, int64_t channels, int lane, F value) {
  const int packed = N > 1 ? bins / (kWarpSize * N) * (kWarpSize * N) : 0;
  for (int b = lane * N; b < packed; b += kWarpSize * N) {
    float values[N];
    load_floats(pixel + b, values);
#pragma unroll
    for (int k = 0; k < N; ++k) values[k] = value(b + k, values[k]);
    store_floats(pixel + b, values);
  }
#pragma unroll 2
  for (int b = packed + lane; b < bins; b += kWarpSize) {
    pixel[b] = static_cast<T>(value(b, static_cast<float>(pixel[b])));
  }
  for (int64_t b = bins + lane; b < channels; b += kWarpSize) pixel[b] = static_cast<T>(0.0f);
}

// The window's part of kl and of offset for one lane (kStudentTeacher: of kl alone).
template <class T>
__device__ void window_sums(const DpmProblem& p, const T* pixel, float lse, float teacher, int lane, float* kl,
                            float* pull) {
  const DpmWindow window = locate(p.table, p.bins.bins, teacher);
  const float norm = target_norm<kWarpSize>(p.table, window, lane);
  for (int j = lane; j < p.table.columns; j += kWarpSize) {
    if (j < window.lo || j > window.hi) continue;
    add_kl(p, log_target(p.table, window, norm, j), static_cast<float>(pixel[window.first + j]) - lse, kl, pull);
  }
}

// One warp per pixel, blocks of 8 warps, each warp strides over the pixels. depth, lse and offset (dpm.h) and per block
// {sum of kl, counted pixels} in partials (blocks, 2). The row is read twice, the second time from L1: per pixel 4 or 2
// B per channel and 16 B of maps. Bound: memory. N > 1 requires channels % N == 0 and aligned logits.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    dpm_kernel(DpmProblem p, const T* logits, const float* teacher, PixelMaps maps, double* partials) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, bins = p.bins.bins;
  const int64_t pixels = p.shape.N * p.shape.H * p.shape.W, stride = static_cast<int64_t>(gridDim.x) * kWarps;
  const float first_centre = static_cast<float>(p.bins.centre(0)), width = static_cast<float>(p.bins.width());
  double sums[2] = {0, 0};
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize; i < pixels; i += stride) {
    const T* pixel = logits + i * p.shape.channels;
    float largest = -INFINITY;
    for_each_bin<N>(pixel, bins, lane, [&](int, float x) { largest = fmaxf(largest, x); });
    largest = warp_max(largest);
    float sum = 0.0f, moment = 0.0f, log_moment = 0.0f;
    for_each_bin<N>(pixel, bins, lane, [&](int b, float x) {
      const float z = x - largest, e = __expf(z);
      sum += e;
      moment += e * static_cast<float>(b);
      log_moment += e * z;
    });
    sum = warp_sum(sum);
    moment = warp_sum(moment);
    const float log_sum = logf(sum), lse = largest + log_sum;
    float kl = 0.0f, pull = 0.0f;
    const bool counted = teacher != nullptr && pixel_counts(p, teacher, i);
    if (counted) {
      const bool student_teacher = p.options.kl == KlDirection::kStudentTeacher;
      window_sums(p, pixel, lse, teacher[i], lane, &kl, &pull);
      if (student_teacher) kl += log_moment / sum;
      kl = warp_sum(kl) + 0.0f * (sum + teacher[i]);  // a NaN logit or teacher shows even outside the window
      if (student_teacher) kl -= log_sum + p.table.log_floor;
      pull = student_teacher ? kl : warp_sum(pull);
    }
    if (lane == 0) {
      maps.depth[i] = first_centre + width * (moment / sum);
      maps.lse[i] = lse;
      if (maps.offset != nullptr) maps.offset[i] = pull;
      sums[0] += static_cast<double>(kl);
      sums[1] += counted ? 1 : 0;
    }
  }
  block_sum<kThreads>(sums);
  if (threadIdx.x == 0 && partials != nullptr) {
    partials[2 * blockIdx.x] = sums[0];
    partials[2 * blockIdx.x + 1] = sums[1];
  }
}

// What the target's window adds to the gradient, in `terms` (columns): the rest of the formula has no target in it.
template <class T>
__device__ void window_terms(const DpmProblem& p, const T* pixel, const DpmWindow& window, float lse, float a, int lane,
                             float* terms) {
  const float norm = target_norm<kWarpSize>(p.table, window, lane);
  for (int j = lane; j < p.table.columns; j += kWarpSize) {
    float term = 0.0f;
    if (j >= window.lo && j <= window.hi) {
      const float q = __expf(static_cast<float>(pixel[window.first + j]) - lse);
      term = kl_gradient(p, log_target(p.table, window, norm, j), q, a);
    }
    terms[j] = term;
  }
}

// One warp per pixel as above. Logits become their gradient in place; dynamic shared memory: kWarps * columns floats
// for the window's terms. Per pixel 8 or 4 B per channel and 20 B of maps. Bound: memory. Same preconditions for N > 1.
template <class T, int N>
__global__ void __launch_bounds__(kThreads, 3)
    dpm_grad_kernel(DpmProblem p, const float* teacher, const float* depth, const float* lse, const float* offset,
                    const float* result, const float* dkl, const float* ddepth, T* logits) {
  DYNAMIC_SHARED(float, shared);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int columns = p.table.columns, bins = p.bins.bins;
  float* terms = shared + warp * columns;
  const int64_t pixels = p.shape.N * p.shape.H * p.shape.W, stride = static_cast<int64_t>(gridDim.x) * kWarps;
  const float first_centre = static_cast<float>(p.bins.centre(0)), width = static_cast<float>(p.bins.width());
  const float per_pixel = dkl != nullptr ? *dkl * result[1] : 0.0f;
  const bool student_teacher = p.options.kl == KlDirection::kStudentTeacher;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kWarps + warp; i < pixels; i += stride) {
    T* pixel = logits + i * p.shape.channels;
    const float a = dkl != nullptr && pixel_counts(p, teacher, i) ? per_pixel : 0.0f;
    const float gd = ddepth != nullptr ? ddepth[i] : 0.0f;
    if (a == 0.0f && gd == 0.0f) {
      replace_bins<N>(pixel, bins, p.shape.channels, lane, [](int, float) { return 0.0f; });
      continue;
    }
    const float l = lse[i];
    float constant = -gd * (depth[i] - first_centre);
    int first = bins;  // no window
    if (a != 0.0f) {
      const DpmWindow window = locate(p.table, bins, teacher[i]);
      window_terms(p, pixel, window, l, a, lane, terms);
      first = window.first;
      constant -= a * (student_teacher ? p.table.log_floor + offset[i] : offset[i]);
    }
    __syncwarp();  // terms are complete, and every lane has read its logits of the window
    const float log_factor = student_teacher ? a : 0.0f, step = gd * width;
    replace_bins<N>(pixel, bins, p.shape.channels, lane, [&](int b, float x) {
      const float z = x - l;
      const int column = b - first;
      const float term = column >= 0 && column < columns ? terms[column] : 0.0f;
      return __expf(z) * (log_factor * z + (step * static_cast<float>(b) + constant)) + term;
    });
    __syncwarp();  // before the next pixel's terms
  }
}

int grid_for(const DpmShape& shape) {
  return static_cast<int>(blocks_for(shape.N * shape.H * shape.W, kWarps, kMaxBlocks));
}

}  // namespace

template <class T>
void dpm(Stream stream, const DpmShape& shape, const DpmBins& bins, const DpmOptions& options,
         const DpmTableView& table, const T* logits, const float* teacher, float* depth, float* lse, float* offset,
         float* result) {
  constexpr int kPack = kPackSize<T>;
  const int blocks = grid_for(shape);
  const DpmProblem problem{shape, bins, options, table};
  const PixelMaps maps{depth, lse, offset};
  double* partials = nullptr;
  if (teacher != nullptr) {
    partials = static_cast<double*>(stream.scratch->get(static_cast<size_t>(blocks) * 2 * sizeof(double)));
  }
  auto* kernel = packable<kPack>(shape.channels, logits) ? dpm_kernel<T, kPack> : dpm_kernel<T, 1>;
  launch(kernel, static_cast<unsigned>(blocks), kThreads, 0, stream, problem, logits, teacher, maps, partials);
  if (teacher != nullptr) launch(dpm_finish_kernel, 1, kDpmFinishThreads, 0, stream, blocks, partials, result);
}

template <class T>
void dpm_grad(Stream stream, const DpmShape& shape, const DpmBins& bins, const DpmOptions& options,
              const DpmTableView& table, const float* teacher, const float* depth, const float* lse,
              const float* offset, const float* result, const float* dkl, const float* ddepth, T* logits) {
  constexpr int kPack = kPackSize<T>;
  const DpmProblem problem{shape, bins, options, table};
  const size_t shared_bytes = dkl != nullptr ? static_cast<size_t>(kWarps * table.columns) * sizeof(float) : 0;
  auto* kernel = packable<kPack>(shape.channels, logits) ? dpm_grad_kernel<T, kPack> : dpm_grad_kernel<T, 1>;
  launch(kernel, static_cast<unsigned>(grid_for(shape)), kThreads, shared_bytes, stream, problem, teacher, depth, lse,
         offset, result, dkl, ddepth, logits);
}

template void dpm(Stream, const DpmShape&, const DpmBins&, const DpmOptions&, const DpmTableView&, const float*,
                  const float*, float*, float*, float*, float*);
template void dpm(Stream, const DpmShape&, const DpmBins&, const DpmOptions&, const DpmTableView&, const bf16*,
                  const float*, float*, float*, float*, float*);
template void dpm_grad(Stream, const DpmShape&, const DpmBins&, const DpmOptions&, const DpmTableView&, const float*,
                       const float*, const float*, const float*, const float*, const float*, const float*, float*);
template void dpm_grad(Stream, const DpmShape&, const DpmBins&, const DpmOptions&, const DpmTableView&, const float*,
                       const float*, const float*, const float*, const float*, const float*, const float*, bf16*);

}  // namespace depthstill::cuda
