#include "kernels/attention/attention.h"

#include "kernels/attention/attention_tiles.h"

namespace depthstill::cpu {

template <class T>
void attention(Stream stream, const AttentionShape& shape, const T* qkv, T* y, float* lse) {
  if (const TileKernels* tiles = tile_kernels<T>()) {
    tiled_attention(*tiles, stream, shape, qkv, y, lse);
  } else {
    plain_attention(stream, shape, qkv, y, lse);
  }
}

template <class T>
void attention_grad(Stream stream, const AttentionShape& shape, const T* qkv, const T* y, const float* lse, const T* dy,
                    T* dqkv) {
  if (const TileKernels* tiles = tile_kernels<T>()) {
    tiled_attention_grad(*tiles, stream, shape, qkv, y, lse, dy, dqkv);
  } else {
    plain_attention_grad(stream, shape, qkv, y, lse, dy, dqkv);
  }
}

template void attention(Stream, const AttentionShape&, const float*, float*, float*);
template void attention(Stream, const AttentionShape&, const bf16*, bf16*, float*);
template void attention_grad(Stream, const AttentionShape&, const float*, const float*, const float*, const float*,
                             float*);
template void attention_grad(Stream, const AttentionShape&, const bf16*, const bf16*, const float*, const bf16*, bf16*);

}  // namespace depthstill::cpu
