// Convolutions by oneDNN in fp32, for what our tiles do not cover: strides in fp32, and processors without AVX-512.
// bf16 images are widened in scratch memory: oneDNN's bf16 kernels without AMX are slower than its fp32 ones.
#pragma once

#include "kernels/conv2d/conv2d.h"

namespace depthstill::cpu {

template <class T>
void dnn_forward(Stream stream, const Conv2dShape& shape, const T* x, const float* weight, const float* bias, T* y);
template <class T>
void dnn_grad_data(Stream stream, const Conv2dShape& shape, const T* dz, const float* weight, T* dx);
template <class T>
void dnn_grad_weight(Stream stream, const Conv2dShape& shape, const T* x, const T* dz, float* dweight);

}  // namespace depthstill::cpu
