#include "kernels/channel_sums.cuh"
#include "kernels/depthwise_conv2d.h"
#include "kernels/launch.h"
#include "kernels/pack.cuh"

namespace depthstill::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kStrip = 4;  // outputs of a thread: amortises loading the weights

// Elements of a thread. Weights, or the sums of dweight, stay in registers: 9 * 8 in bf16 and 25 * 4.
template <class T, int K>
inline constexpr int kWidth = K == 3 ? kPackSize<T> : 4;

enum class Pass { kForward, kBackward };

// Where tap t of position `out` reads along one axis, or -1: out * stride + t * dilation - pad forward, its inverse
// backward.
template <Pass pass, int kStride>
__device__ __forceinline__ int source(int out, int t, int dilation, int pad, int in_size) {
  int in = pass == Pass::kForward ? out * kStride + t * dilation - pad : out + pad - t * dilation;
  if (pass == Pass::kBackward && kStride > 1) {
    if (in < 0 || in % kStride != 0) return -1;
    in /= kStride;
  }
  return in >= 0 && in < in_size ? in : -1;
}

template <int kCount, int N>
__device__ __forceinline__ void load_weights(const float* weight, int C, float (&w)[kCount][N]) {
  constexpr int kPart = N < 4 ? N : 4;
#pragma unroll
  for (int tap = 0; tap < kCount; ++tap) {
#pragma unroll
    for (int i = 0; i < N; i += kPart) {
      const Pack<float, kPart> part = load_pack<kPart>(weight + tap * C + i);
#pragma unroll
      for (int k = 0; k < kPart; ++k) w[tap][i + k] = part.lane[k];
    }
  }
}

struct Geometry {
  int out_height, out_width, in_height, in_width, C, dilation, pad_top, pad_left;
  int groups;          // packs of channels
  int strips;          // per row; strip j holds columns j, j + strips, ... so that neighbouring threads read neighbours
  int blocks_per_row;  // of kThreads (strip, group) pairs
};

// out[n,h,w,c] = sum over taps of in[n, source(h), source(w), c] * weight[tap, c]: the forward pass or dx.
//   in (N, in_height, in_width, C)   weight (K, K, C)   out (N, out_height, out_width, C)
// One thread per N channels of a strip of kStrip outputs, weights in registers; grid = N * out_height * blocks_per_row.
// Precondition: C % N == 0. Moves both maps once if the L1/L2 caches keep K rows; for K = 3, 9 loads of 16 B and 72 FMA
// per 8 bf16 outputs are below the time of their 32 B of DRAM traffic.
template <int K, class T, int N, Pass pass, int kStride>
__global__ void __launch_bounds__(kThreads)
    depthwise_kernel(Geometry g, const T* __restrict__ in, const float* __restrict__ weight, T* __restrict__ out) {
  const int row = static_cast<int>(blockIdx.x) / g.blocks_per_row;
  const int item = static_cast<int>(blockIdx.x) % g.blocks_per_row * kThreads + static_cast<int>(threadIdx.x);
  if (item >= g.strips * g.groups) return;
  const int c = item % g.groups * N, strip = item / g.groups;
  const int h = row % g.out_height, n = row / g.out_height;

  float w[K * K][N];
  load_weights(weight + c, g.C, w);
  const T* rows[K];
#pragma unroll
  for (int r = 0; r < K; ++r) {
    const int from = source<pass, kStride>(h, r, g.dilation, g.pad_top, g.in_height);
    rows[r] = from < 0 ? nullptr : in + (static_cast<int64_t>(n) * g.in_height + from) * g.in_width * g.C + c;
  }
#pragma unroll 1
  for (int q = strip; q < g.out_width; q += g.strips) {
    float sum[N] = {};
#pragma unroll
    for (int s = 0; s < K; ++s) {
      const int column = source<pass, kStride>(q, s, g.dilation, g.pad_left, g.in_width);
      if (column < 0) continue;
#pragma unroll
      for (int r = 0; r < K; ++r) {
        if (rows[r] == nullptr) continue;
        float x[N];
        load_floats(rows[r] + static_cast<int64_t>(column) * g.C, x);
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i] += x[i] * w[r * K + s][i];
      }
    }
    store_floats(out + (static_cast<int64_t>(row) * g.out_width + q) * g.C + c, sum);
  }
}

template <int K, Pass pass, class T>
void depthwise(Stream stream, const DepthwiseShape& shape, const T* in, const float* weight, T* out) {
  const bool forward = pass == Pass::kForward;
  const auto H = static_cast<int>(shape.H), W = static_cast<int>(shape.W), P = static_cast<int>(shape.P()),
             Q = static_cast<int>(shape.Q()), C = static_cast<int>(shape.C);
  const auto run = [&]<int N, int kStride>() {
    Geometry g{forward ? P : H,
               forward ? Q : W,
               forward ? H : P,
               forward ? W : Q,
               C,
               shape.dilation,
               shape.pad_top,
               shape.pad_left,
               C / N,
               0,
               0};
    g.strips = (g.out_width + kStrip - 1) / kStrip;
    g.blocks_per_row = static_cast<int>(blocks_for(int64_t{g.strips} * g.groups, kThreads));
    launch(depthwise_kernel<K, T, N, pass, kStride>, blocks_for(shape.N * g.out_height * g.blocks_per_row, 1), kThreads,
           0, stream, g, in, weight, out);
  };
  constexpr int kPack = kWidth<T, K>;
  if (packable<kPack>(C, in, out) && packable<4>(C, weight)) {
    shape.stride == 1 ? run.template operator()<kPack, 1>() : run.template operator()<kPack, 2>();
  } else {
    shape.stride == 1 ? run.template operator()<1, 1>() : run.template operator()<1, 2>();
  }
}

// partial[chunk, tap, c] = sum over the chunk's positions of dy * x shifted by the tap.
//   x (N, H, W, C)   dy (N, P, Q, C)   partial (chunks, K * K, C)
// Positions (n, p, q) are the rows of ChannelSums; K * K * N sums per thread in registers. Reads both maps once, as
// above.
template <int K, class T, int N>
__global__ void __launch_bounds__(ChannelSums::kThreads)
    depthwise_dweight_kernel(ChannelSums sums, DepthwiseShape shape, const T* __restrict__ x, const T* __restrict__ dy,
                             float* __restrict__ partial) {
  const ChannelThread<N> thread(sums);
  const int H = static_cast<int>(shape.H), W = static_cast<int>(shape.W), C = static_cast<int>(shape.C);
  const int P = static_cast<int>(shape.P()), Q = static_cast<int>(shape.Q());
  float sum[K * K][N] = {};
  if (thread.inside) {
    int q = static_cast<int>(thread.begin % Q), p = static_cast<int>(thread.begin / Q % P);
    int64_t n = thread.begin / Q / P;
#pragma unroll 1
    for (int64_t position = thread.begin; position < thread.end; position += ChannelThread<N>::kRowStep) {
      float z[N];
      load_floats(dy + position * C + thread.channel, z);
#pragma unroll
      for (int r = 0; r < K; ++r) {
        const int h = p * shape.stride + r * shape.dilation - shape.pad_top;
        if (h < 0 || h >= H) continue;
#pragma unroll
        for (int s = 0; s < K; ++s) {
          const int w = q * shape.stride + s * shape.dilation - shape.pad_left;
          if (w < 0 || w >= W) continue;
          float v[N];
          load_floats(x + ((n * H + h) * W + w) * C + thread.channel, v);
#pragma unroll
          for (int i = 0; i < N; ++i) sum[r * K + s][i] += z[i] * v[i];
        }
      }
      for (q += ChannelThread<N>::kRowStep; q >= Q; q -= Q) {
        if (++p == P) {
          p = 0;
          ++n;
        }
      }
    }
  }
  store_chunk_sums(sums, sum, partial);
}

template <int K, class T>
void sum_dweight(Stream stream, const DepthwiseShape& shape, const T* x, const T* dy, float* dweight) {
  const auto C = static_cast<int>(shape.C);
  const ChannelSums sums(shape.N * shape.P() * shape.Q(), C);
  auto* partial = static_cast<float*>(stream.scratch->get(sums.partial_floats(K * K) * sizeof(float)));
  constexpr int kPack = kWidth<T, K>;
  if (packable<kPack>(C, x, dy)) {
    launch(depthwise_dweight_kernel<K, T, kPack>, sums.grid(), ChannelSums::kThreads, 0, stream, sums, shape, x, dy,
           partial);
  } else {
    launch(depthwise_dweight_kernel<K, T, 1>, sums.grid(), ChannelSums::kThreads, 0, stream, sums, shape, x, dy,
           partial);
  }
  sum_chunks(stream, sums.chunks, K * K * C, partial, dweight);
}

}  // namespace

template <class T>
void depthwise_conv2d(Stream stream, const DepthwiseShape& shape, const T* x, const float* weight, T* y) {
  shape.kernel == 3 ? depthwise<3, Pass::kForward>(stream, shape, x, weight, y)
                    : depthwise<5, Pass::kForward>(stream, shape, x, weight, y);
}

template <class T>
void depthwise_conv2d_dx(Stream stream, const DepthwiseShape& shape, const T* dy, const float* weight, T* dx) {
  shape.kernel == 3 ? depthwise<3, Pass::kBackward>(stream, shape, dy, weight, dx)
                    : depthwise<5, Pass::kBackward>(stream, shape, dy, weight, dx);
}

template <class T>
void depthwise_conv2d_dweight(Stream stream, const DepthwiseShape& shape, const T* x, const T* dy, float* dweight) {
  shape.kernel == 3 ? sum_dweight<3>(stream, shape, x, dy, dweight) : sum_dweight<5>(stream, shape, x, dy, dweight);
}

template void depthwise_conv2d(Stream, const DepthwiseShape&, const float*, const float*, float*);
template void depthwise_conv2d(Stream, const DepthwiseShape&, const bf16*, const float*, bf16*);
template void depthwise_conv2d_dx(Stream, const DepthwiseShape&, const float*, const float*, float*);
template void depthwise_conv2d_dx(Stream, const DepthwiseShape&, const bf16*, const float*, bf16*);
template void depthwise_conv2d_dweight(Stream, const DepthwiseShape&, const float*, const float*, float*);
template void depthwise_conv2d_dweight(Stream, const DepthwiseShape&, const bf16*, const bf16*, float*);

}  // namespace depthstill::cuda
