// Chooses between our tile kernels and oneDNN. The choice depends on the shape and the processor only, never on
// timings, so that runs can be repeated.
#include "kernels/conv2d/conv2d.h"

#include <algorithm>
#include <type_traits>

#include "kernels/conv2d/conv2d_dnn.h"
#include "kernels/conv2d/conv2d_tiles.h"

namespace depthstill::cpu {
namespace {

enum class Result { kImage, kWeight };  // y and dx; dweight

// Null for oneDNN, which takes fp32 alone: bf16 images would be copied on both sides. Packing into lines of 16 channels
// pays with AVX2, too, where each is multiplied often enough.
template <class T>
const TileKernels* tiles_for(const Conv2dShape& shape, Result result) {
  const TileKernels* tiles = tile_kernels<T>();
  if constexpr (std::is_same_v<T, float>) {
    if (shape.stride != 1) return nullptr;
    const bool often = shape.R * shape.S > 1 && std::min(shape.C, shape.O) >= kPairOutputs;
    if (tiles == avx2_kernels<float>() && result == Result::kImage && !often) return nullptr;
  }
  return tiles;
}

}  // namespace

template <class T>
bool conv2d_may_nest(const Conv2dShape& shape) {
  return tiles_for<T>(shape, Result::kImage) && tiles_for<T>(shape, Result::kWeight);
}

template <class T>
void conv2d(Stream stream, const Conv2dShape& shape, Activation act, const T* x, const float* weight, const float* bias,
            T* y) {
  if (const TileKernels* tiles = tiles_for<T>(shape, Result::kImage)) {
    tiled_forward(*tiles, stream, shape, act, x, weight, bias, y);
    return;
  }
  dnn_forward(stream, shape, x, weight, bias, y);
  // oneDNN does not fuse the activation: its relu turns NaN into 0.
  if (act != Activation::kNone) activation(stream, shape.N * shape.P() * shape.Q() * shape.O, act, y, y);
}

template <class T>
void batch_norm_conv2d(Stream stream, const Conv2dShape& shape, const BatchNormInput& norm, const T* x,
                       const float* weight, const float*, T* z, T* y, float* moments) {
  const bool normed = norm.mean != nullptr;
  if (normed) {
    batch_norm(stream, shape.N * shape.H * shape.W, static_cast<int>(shape.C), norm, x, z);
  }
  conv2d<T>(stream, shape, Activation::kNone, normed ? z : x, weight, nullptr, y);
  if (moments) batch_norm_moments(stream, shape.N * shape.P() * shape.Q(), static_cast<int>(shape.O), y, moments);
}

template <class T>
void conv2d_grad(Stream stream, const Conv2dShape& shape, Activation act, const T* x, const float* weight, const T* y,
                 T* dy, const Conv2dGradients<T>& to) {
  if (act != Activation::kNone || to.dbias) {
    const int64_t pixels = shape.N * shape.P() * shape.Q();
    bias_activation_grad(stream, pixels, static_cast<int>(shape.O), act, y, dy, dy, to.dbias);
  }
  if (to.dx) {
    if (const TileKernels* tiles = tiles_for<T>(shape, Result::kImage))
      tiled_grad_data(*tiles, stream, shape, dy, weight, to.dx);
    else
      dnn_grad_data(stream, shape, dy, weight, to.dx);
  }
  if (to.dx && to.below != Activation::kNone) {
    const int64_t pixels = shape.N * shape.H * shape.W;
    bias_activation_grad(stream, pixels, static_cast<int>(shape.C), to.below, x, to.dx, to.dx, to.dbias_below);
  }
  if (!to.dweight) return;
  if (const TileKernels* tiles = tiles_for<T>(shape, Result::kWeight))
    tiled_grad_weight(*tiles, stream, shape, x, dy, to.dweight);
  else
    dnn_grad_weight(stream, shape, x, dy, to.dweight);
}

#define DS_INSTANTIATE(T)                                                                                    \
  template bool conv2d_may_nest<T>(const Conv2dShape&);                                                      \
  template void conv2d(Stream, const Conv2dShape&, Activation, const T*, const float*, const float*, T*);    \
  template void batch_norm_conv2d(Stream, const Conv2dShape&, const BatchNormInput&, const T*, const float*, \
                                  const float*, T*, T*, float*);                                             \
  template void conv2d_grad(Stream, const Conv2dShape&, Activation, const T*, const float*, const T*, T*,    \
                            const Conv2dGradients<T>&);
DS_INSTANTIATE(float)
DS_INSTANTIATE(bf16)
#undef DS_INSTANTIATE

}  // namespace depthstill::cpu
