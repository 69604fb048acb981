// Chooses between our tile kernels (stride 1 on AVX-512 or AMX) and oneDNN. The choice depends on the shape and the
// processor only, never on timings, so that runs can be repeated.
#include "kernels/conv2d/conv2d.h"

#include "kernels/conv2d/conv2d_dnn.h"
#include "kernels/conv2d/conv2d_tiles.h"

namespace depthstill::cpu {
namespace {

template <class T>
const TileKernels* tiles_for(const Conv2dShape& shape) {
  return shape.stride == 1 ? tile_kernels<T>() : nullptr;
}

}  // namespace

template <class T>
void conv2d(Stream stream, const Conv2dShape& shape, Activation act, const T* x, const float* weight, const float* bias,
            T* y) {
  if (const TileKernels* tiles = tiles_for<T>(shape)) {
    tiled_forward(*tiles, stream, shape, act, x, weight, bias, y);
    return;
  }
  dnn_forward(stream, shape, x, weight, bias, y);
  // Not fused by oneDNN, whose relu turns NaN into 0.
  if (act != Activation::kNone) activation(stream, shape.N * shape.P() * shape.Q() * shape.O, act, y, y);
}

template <class T>
void batch_norm_conv2d(Stream stream, const Conv2dShape& shape, const BatchNormInput& norm, const T* x,
                       const float* weight, const float*, T* z, T* y, float* moments) {
  const bool normed = norm.mean != nullptr;
  if (normed) {
    batch_norm(stream, shape.N * shape.H * shape.W, static_cast<int>(shape.C), norm.act, x, norm.mean, norm.rstd,
               norm.weight, norm.bias, z);
  }
  conv2d<T>(stream, shape, Activation::kNone, normed ? z : x, weight, nullptr, y);
  if (moments) batch_norm_moments(stream, shape.N * shape.P() * shape.Q(), static_cast<int>(shape.O), y, moments);
}

template <class T>
void conv2d_grad(Stream stream, const Conv2dShape& shape, Activation act, const T* x, const float* weight, const T* y,
                 T* dy, T* dx, float* dweight, float* dbias, Activation below, float* dbias_below) {
  if (act != Activation::kNone || dbias) {
    const int64_t pixels = shape.N * shape.P() * shape.Q();
    bias_activation_grad(stream, pixels, static_cast<int>(shape.O), act, y, dy, dy, dbias);
  }
  const TileKernels* tiles = tiles_for<T>(shape);
  if (dx && tiles) tiled_grad_data(*tiles, stream, shape, dy, weight, dx);
  if (dx && !tiles) dnn_grad_data(stream, shape, dy, weight, dx);
  if (dx && below != Activation::kNone) {
    const int64_t pixels = shape.N * shape.H * shape.W;
    bias_activation_grad(stream, pixels, static_cast<int>(shape.C), below, x, dx, dx, dbias_below);
  }
  if (dweight && tiles) tiled_grad_weight(*tiles, stream, shape, x, dy, dweight);
  if (dweight && !tiles) dnn_grad_weight(stream, shape, x, dy, dweight);
}

template void conv2d(Stream, const Conv2dShape&, Activation, const float*, const float*, const float*, float*);
template void conv2d(Stream, const Conv2dShape&, Activation, const bf16*, const float*, const float*, bf16*);
template void batch_norm_conv2d(Stream, const Conv2dShape&, const BatchNormInput&, const float*, const float*,
                                const float*, float*, float*, float*);
template void batch_norm_conv2d(Stream, const Conv2dShape&, const BatchNormInput&, const bf16*, const float*,
                                const float*, bf16*, bf16*, float*);
template void conv2d_grad(Stream, const Conv2dShape&, Activation, const float*, const float*, const float*, float*,
                          float*, float*, float*, Activation, float*);
template void conv2d_grad(Stream, const Conv2dShape&, Activation, const bf16*, const float*, const bf16*, bf16*, bf16*,
                          float*, float*, Activation, float*);

}  // namespace depthstill::cpu
