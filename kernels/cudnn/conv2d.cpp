// cuda::conv2d and its gradient: one cuDNN plan per pass and shape, our own kernels for bias, activation and casts.
#include "kernels/conv2d.h"

#include <array>
#include <map>
#include <string>
#include <tuple>
#include <type_traits>

#include "kernels/bias_activation.h"
#include "kernels/cast.h"
#include "kernels/cudnn/conv2d_plan.h"
#include "kernels/error.h"

namespace depthstill {
namespace cudnn {

const char* name_of(Pass pass) {
  constexpr const char* names[] = {"forward", "data gradient", "weight gradient"};
  return names[static_cast<int>(pass)];
}

Plan make_conv2d_plan(const Target& target, const Conv2dShape& s, cudnnDataType_t type, Pass pass,
                      const PlanOptions& options) {
  const Descriptor x = nhwc_tensor(kX, type, s.N, s.C, s.H, s.W);
  const Descriptor weight = nhwc_tensor(kWeight, type, s.O, s.C, s.R, s.S);
  const Descriptor y = nhwc_tensor(kY, type, s.N, s.O, s.P(), s.Q());
  const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  Descriptor conv(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  conv.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT)
      .set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode)
      .set(CUDNN_ATTR_CONVOLUTION_DILATIONS, {s.dilation, s.dilation})
      .set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, {s.stride, s.stride})
      .set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, {s.pad_top, s.pad_left})
      .set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, {s.pad_bottom, s.pad_right})
      .set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, int64_t{2})
      .finalize();

  const float alpha = 1.0f, beta = 0.0f;
  const auto operation = [&](cudnnBackendDescriptorType_t kind, cudnnBackendAttributeName_t x_name,
                             cudnnBackendAttributeName_t weight_name, cudnnBackendAttributeName_t y_name,
                             cudnnBackendAttributeName_t conv_name, cudnnBackendAttributeName_t alpha_name,
                             cudnnBackendAttributeName_t beta_name) {
    Descriptor op(kind);
    op.set(x_name, x)
        .set(weight_name, weight)
        .set(y_name, y)
        .set(conv_name, conv)
        .set(alpha_name, CUDNN_TYPE_FLOAT, 1, &alpha)
        .set(beta_name, CUDNN_TYPE_FLOAT, 1, &beta)
        .finalize();
    return op;
  };
  const std::string name =
      concat_text("conv2d ", name_of(pass), " of (", s.N, ", ", s.H, ", ", s.W, ", ", s.C, ") with ", s.O,
                  " filters of ", s.R, "x", s.S, ", stride ", s.stride, ", dilation ", s.dilation);
  switch (pass) {
    case Pass::kForward:
      return Plan(
          target,
          operation(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA),
          name, options);
    case Pass::kDataGradient:
      return Plan(
          target,
          operation(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA),
          name, options);
    case Pass::kWeightGradient:
      return Plan(
          target,
          operation(
              CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA),
          name, options);
  }
  fail("cudnn: unknown pass");
}

}  // namespace cudnn

namespace cuda {
namespace {

using cudnn::kWeight, cudnn::kX, cudnn::kY, cudnn::Pass, cudnn::Plan;

template <class T>
constexpr cudnnDataType_t kCudnnType = CUDNN_DATA_FLOAT;
template <>
constexpr cudnnDataType_t kCudnnType<bf16> = CUDNN_DATA_BFLOAT16;

size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

const Plan& plan_for(Stream stream, const Conv2dShape& s, cudnnDataType_t type, Pass pass) {
  using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, std::array<int, 6>, int, int>;
  static std::map<Key, Plan>& plans = *new std::map<Key, Plan>();
  const Key key{s.N,
                s.H,
                s.W,
                s.C,
                s.O,
                s.R,
                s.S,
                {s.stride, s.dilation, s.pad_top, s.pad_bottom, s.pad_left, s.pad_right},
                static_cast<int>(type),
                static_cast<int>(pass)};
  auto found = plans.find(key);
  if (found == plans.end()) {
    found = plans.emplace(key, cudnn::make_conv2d_plan(cudnn::current_target(stream), s, type, pass)).first;
  }
  return found->second;
}

int64_t weight_count(const Conv2dShape& s) { return s.O * s.R * s.S * s.C; }

// Scratch: the weights (or their gradient) in T, then the plan's workspace.
template <class T>
size_t weight_bytes(const Conv2dShape& s) {
  return std::is_same_v<T, float> ? 0 : aligned(static_cast<size_t>(weight_count(s)) * sizeof(T));
}

// The weights as T: themselves in fp32, rounded into `room` in bf16.
template <class T>
const void* typed_weight(Stream stream, const Conv2dShape& s, const float* weight, void* room) {
  if constexpr (std::is_same_v<T, float>) {
    return weight;
  } else {
    cast<float, T>(stream, weight_count(s), weight, static_cast<T*>(room));
    return room;
  }
}

}  // namespace

template <class T>
void conv2d(Stream stream, const Conv2dShape& s, Activation act, const T* x, const float* weight, const float* bias,
            T* y) {
  const Plan& plan = plan_for(stream, s, kCudnnType<T>, Pass::kForward);
  auto* room = static_cast<char*>(stream.scratch->get(weight_bytes<T>(s) + plan.workspace_bytes() + 256));
  const void* w = typed_weight<T>(stream, s, weight, room);
  plan.execute(stream, {{kX, x}, {kWeight, w}, {kY, y}}, room + weight_bytes<T>(s));
  if (bias != nullptr || act != Activation::kNone) {
    bias_activation(stream, s.N * s.P() * s.Q(), static_cast<int>(s.O), act, bias, y);
  }
}

template <class T>
void conv2d_grad(Stream stream, const Conv2dShape& s, Activation act, const T* x, const float* weight, const T* y,
                 T* dy, T* dx, float* dweight, float* dbias) {
  if (act != Activation::kNone || dbias != nullptr) {
    bias_activation_grad(stream, s.N * s.P() * s.Q(), static_cast<int>(s.O), act, y, dy, dy, dbias);
  }
  if (dx != nullptr) {
    const Plan& plan = plan_for(stream, s, kCudnnType<T>, Pass::kDataGradient);
    auto* room = static_cast<char*>(stream.scratch->get(weight_bytes<T>(s) + plan.workspace_bytes() + 256));
    const void* w = typed_weight<T>(stream, s, weight, room);
    plan.execute(stream, {{kX, dx}, {kWeight, w}, {kY, dy}}, room + weight_bytes<T>(s));
  }
  if (dweight != nullptr) {
    const Plan& plan = plan_for(stream, s, kCudnnType<T>, Pass::kWeightGradient);
    auto* room = static_cast<char*>(stream.scratch->get(weight_bytes<T>(s) + plan.workspace_bytes() + 256));
    void* dw = std::is_same_v<T, float> ? static_cast<void*>(dweight) : room;
    plan.execute(stream, {{kX, x}, {kWeight, dw}, {kY, dy}}, room + weight_bytes<T>(s));
    if constexpr (!std::is_same_v<T, float>) {
      cast<T, float>(stream, weight_count(s), static_cast<const T*>(dw), dweight);
    }
  }
}

#define DS_INSTANTIATE(T)                                                                                        \
  template void conv2d<T>(Stream, const Conv2dShape&, Activation, const T*, const float*, const float*, T*);     \
  template void conv2d_grad<T>(Stream, const Conv2dShape&, Activation, const T*, const float*, const T*, T*, T*, \
                               float*, float*);
DS_INSTANTIATE(float)
DS_INSTANTIATE(bf16)
#undef DS_INSTANTIATE

}  // namespace cuda
}  // namespace depthstill
