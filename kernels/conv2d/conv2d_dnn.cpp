#include "kernels/conv2d/conv2d_dnn.h"

#include <array>
#include <map>
#include <memory>
#include <type_traits>
#include <unordered_map>

#include "kernels/core/error.h"
#include "kernels/core/parallel.h"
#include "kernels/onednn/onednn.h"

namespace depthstill::cpu {
namespace {

using dnnl::memory;
using Tag = memory::format_tag;
using Forward = dnnl::convolution_forward;
using GradData = dnnl::convolution_backward_data;
using GradWeight = dnnl::convolution_backward_weights;

enum class Pass { kForward, kGradData, kGradWeight };

// oneDNN 3 merged the descriptor and the primitive descriptor.
template <class Convolution, class... Hint>
typename Convolution::primitive_desc describe(const dnnl::prop_kind kind, const std::array<memory::desc, 4>& d,
                                              const std::array<memory::dims, 4>& geometry, const Hint&... hint) {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const auto direct = dnnl::algorithm::convolution_direct;
  const auto& [x, weight, bias, y] = d;
  const auto& [strides, dilations, pad_low, pad_high] = geometry;
#if DNNL_VERSION_MAJOR >= 3
  if constexpr (std::is_same_v<Convolution, Forward>) {
    return {dnn_engine(), kind, direct, x, weight, bias, y, strides, dilations, pad_low, pad_high, attributes};
  } else {
    static_cast<void>(kind);
    return {dnn_engine(), direct, x, weight, y, strides, dilations, pad_low, pad_high, hint..., attributes};
  }
#else
  if constexpr (std::is_same_v<Convolution, Forward>) {
    return {{kind, direct, x, weight, bias, y, strides, dilations, pad_low, pad_high}, attributes, dnn_engine()};
  } else {
    static_cast<void>(kind);
    return {{direct, x, weight, y, strides, dilations, pad_low, pad_high}, attributes, dnn_engine(), hint...};
  }
#endif
}

size_t align_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

// A prepared convolution: images channels last, weights in the layout that oneDNN prefers.
struct Plan {
  memory::desc x, y, bias, plain_weight, weight, scratchpad;
  dnnl::primitive convolution;
  dnnl::reorder reorder;  // plain -> preferred, or back for the weight gradient; empty if they are the same

  bool reorders() const { return weight != plain_weight; }
  size_t weight_bytes() const { return reorders() ? align_up(weight.get_size()) : 0; }
  size_t bytes() const { return weight_bytes() + align_up(scratchpad.get_size()); }
};

template <class Desc>
void finish(Plan& plan, const Desc& desc, const memory::desc& weight, bool weight_is_output) {
  plan.weight = weight;
  plan.scratchpad = desc.scratchpad_desc();
  plan.convolution = dnnl::primitive(desc.get());
  if (!plan.reorders()) return;
  const memory::desc& from = weight_is_output ? plan.weight : plan.plain_weight;
  const memory::desc& to = weight_is_output ? plan.plain_weight : plan.weight;
  plan.reorder = dnnl::reorder(dnnl::reorder::primitive_desc(dnn_engine(), from, dnn_engine(), to));
}

std::unique_ptr<Plan> make_plan(const Conv2dShape& s, Pass pass, bool has_bias) {
  constexpr auto kF32 = memory::data_type::f32;
  const memory::dims weight_dims{s.O, s.C, s.R, s.S};
  auto plan = std::make_unique<Plan>();
  plan->x = memory::desc({s.N, s.C, s.H, s.W}, kF32, Tag::nhwc);
  plan->y = memory::desc({s.N, s.O, s.P(), s.Q()}, kF32, Tag::nhwc);
  plan->plain_weight = memory::desc(weight_dims, kF32, Tag::ohwi);
  if (has_bias) plan->bias = memory::desc({s.O}, kF32, Tag::x);
  const std::array<memory::desc, 4> descs{plan->x, memory::desc(weight_dims, kF32, Tag::any), plan->bias, plan->y};
  const std::array<memory::dims, 4> geometry{
      memory::dims{s.stride, s.stride}, memory::dims{s.dilation - 1, s.dilation - 1},
      memory::dims{s.pad_top, s.pad_left}, memory::dims{s.pad_bottom, s.pad_right}};
  const auto forward = describe<Forward>(
      pass == Pass::kForward ? dnnl::prop_kind::forward_inference : dnnl::prop_kind::forward_training, descs, geometry);
  if (pass == Pass::kForward) {
    finish(*plan, forward, forward.weights_desc(), false);
  } else if (pass == Pass::kGradData) {
    const auto desc = describe<GradData>({}, descs, geometry, forward);
    finish(*plan, desc, desc.weights_desc(), false);
  } else {
    const auto desc = describe<GradWeight>({}, descs, geometry, forward);
    finish(*plan, desc, desc.diff_weights_desc(), true);
  }
  return plan;
}

// Plans are small, but building one takes about a millisecond.
const Plan& plan_for(const Conv2dShape& s, Pass pass, bool has_bias) {
  using Key = std::array<int64_t, 15>;
  const Key key{s.N,      s.H,        s.W,       s.C,          s.O,        s.R,         s.S,
                s.stride, s.dilation, s.pad_top, s.pad_bottom, s.pad_left, s.pad_right, static_cast<int64_t>(pass),
                has_bias};
  thread_local std::map<Key, std::unique_ptr<Plan>> plans;
  constexpr size_t kMaxPlans = 512;
  auto found = plans.find(key);
  if (found == plans.end()) {
    if (plans.size() >= kMaxPlans) plans.clear();
    try {
      found = plans.emplace(key, make_plan(s, pass, has_bias)).first;
    } catch (const dnnl::error& error) {
      fail("conv2d: oneDNN cannot convolve (", s.N, ", ", s.H, ", ", s.W, ", ", s.C, ") with ", s.O, " filters ", s.R,
           " x ", s.S, ": ", error.what());
    }
  }
  return *found->second;
}

// fp32 views of images of T: themselves, or copies in scratch memory.
template <class T>
struct Widened {
  size_t bytes;
  int64_t n;
  explicit Widened(int64_t count)
      : bytes(std::is_same_v<T, float> ? 0 : align_up(static_cast<size_t>(count) * sizeof(float))), n(count) {}

  float* place(T* image, std::byte*& memory) const {
    if constexpr (std::is_same_v<T, float>) return image;
    auto* copy = reinterpret_cast<float*>(memory);
    memory += bytes;
    return copy;
  }
  const float* read(const T* image, std::byte*& memory) const {
    float* copy = place(const_cast<T*>(image), memory);
    if constexpr (!std::is_same_v<T, float>) {
      parallel_for(n, 1 << 14, [&](int64_t i) { copy[i] = static_cast<float>(image[i]); });
    }
    return copy;
  }
  void write(const float* copy, T* image) const {
    if constexpr (!std::is_same_v<T, float>) {
      parallel_for(n, 1 << 14, [&](int64_t i) { image[i] = static_cast<T>(copy[i]); });
    }
  }
};

memory view(const memory::desc& desc, const void* data) { return memory(desc, dnn_engine(), const_cast<void*>(data)); }

void reorder(const Plan& plan, memory from, memory to) { dnnl::reorder(plan.reorder).execute(dnn_stream(), from, to); }

// Reorders the weights if necessary and runs; `own` is the plan's scratch memory.
void run(const Plan& plan, Pass pass, const void* x, const void* weight, const void* bias, const void* y,
         std::byte* own) {
  const memory plain = view(plan.plain_weight, weight);
  const memory preferred = plan.reorders() ? view(plan.weight, own) : plain;
  if (plan.reorders() && pass != Pass::kGradWeight) reorder(plan, plain, preferred);
  std::unordered_map<int, memory> args{
      {pass == Pass::kGradData ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, view(plan.x, x)},
      {pass == Pass::kGradWeight ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, preferred},
      {pass == Pass::kForward ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, view(plan.y, y)},
      {DNNL_ARG_SCRATCHPAD, view(plan.scratchpad, own + plan.weight_bytes())}};
  if (bias) args.emplace(DNNL_ARG_BIAS, view(plan.bias, bias));
  plan.convolution.execute(dnn_stream(), args);
  if (plan.reorders() && pass == Pass::kGradWeight) reorder(plan, preferred, plain);
  dnn_stream().wait();
}

int64_t input_size(const Conv2dShape& s) { return s.N * s.H * s.W * s.C; }
int64_t output_size(const Conv2dShape& s) { return s.N * s.P() * s.Q() * s.O; }

}  // namespace

template <class T>
void dnn_forward(Stream stream, const Conv2dShape& shape, const T* x, const float* weight, const float* bias, T* y) {
  const Plan& plan = plan_for(shape, Pass::kForward, bias != nullptr);
  const Widened<T> in(input_size(shape)), out(output_size(shape));
  auto* own = static_cast<std::byte*>(stream.scratch->get(plan.bytes() + in.bytes + out.bytes));
  std::byte* rest = own + plan.bytes();
  const float* wide_x = in.read(x, rest);
  float* wide_y = out.place(y, rest);
  run(plan, Pass::kForward, wide_x, weight, bias, wide_y, own);
  out.write(wide_y, y);
}

template <class T>
void dnn_grad_data(Stream stream, const Conv2dShape& shape, const T* dz, const float* weight, T* dx) {
  const Plan& plan = plan_for(shape, Pass::kGradData, false);
  const Widened<T> in(output_size(shape)), out(input_size(shape));
  auto* own = static_cast<std::byte*>(stream.scratch->get(plan.bytes() + in.bytes + out.bytes));
  std::byte* rest = own + plan.bytes();
  const float* wide_dz = in.read(dz, rest);
  float* wide_dx = out.place(dx, rest);
  run(plan, Pass::kGradData, wide_dx, weight, nullptr, wide_dz, own);
  out.write(wide_dx, dx);
}

template <class T>
void dnn_grad_weight(Stream stream, const Conv2dShape& shape, const T* x, const T* dz, float* dweight) {
  const Plan& plan = plan_for(shape, Pass::kGradWeight, false);
  const Widened<T> in(input_size(shape)), out(output_size(shape));
  auto* own = static_cast<std::byte*>(stream.scratch->get(plan.bytes() + in.bytes + out.bytes));
  std::byte* rest = own + plan.bytes();
  const float* wide_x = in.read(x, rest);
  const float* wide_dz = out.read(dz, rest);
  run(plan, Pass::kGradWeight, wide_x, dweight, nullptr, wide_dz, own);
}

template void dnn_forward(Stream, const Conv2dShape&, const float*, const float*, const float*, float*);
template void dnn_forward(Stream, const Conv2dShape&, const bf16*, const float*, const float*, bf16*);
template void dnn_grad_data(Stream, const Conv2dShape&, const float*, const float*, float*);
template void dnn_grad_data(Stream, const Conv2dShape&, const bf16*, const float*, bf16*);
template void dnn_grad_weight(Stream, const Conv2dShape&, const float*, const float*, float*);
template void dnn_grad_weight(Stream, const Conv2dShape&, const bf16*, const bf16*, float*);

}  // namespace depthstill::cpu
