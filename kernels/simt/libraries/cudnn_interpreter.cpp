#include "kernels/simt/libraries/cudnn_interpreter.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "kernels/core/parallel.h"
#include "kernels/simt/libraries/product.h"

namespace depthstill::simt {
namespace {

// Values are kept dense and channels last, whatever the tensor's strides: what is called N, H, W, C of a filter is its
// O, R, S, C.
struct Extent {
  explicit Extent(const Tensor& t) : N(t.dims[0]), C(t.dims[1]), H(t.dims[2]), W(t.dims[3]) {}
  int64_t N, C, H, W;
};

// body(index in memory, index among the values) for every element.
template <class Body>
void for_each_element(const Tensor& tensor, const Body& body) {
  const Extent e(tensor);
  const auto& s = tensor.strides;
  parallel_for(e.N * e.H, 1, [&](int64_t row) {
    const int64_t n = row / e.H, h = row % e.H;
    for (int64_t w = 0; w < e.W; ++w) {
      const int64_t memory = n * s[0] + h * s[2] + w * s[3], value = (row * e.W + w) * e.C;
      for (int64_t c = 0; c < e.C; ++c) body(memory + c * s[1], value + c);
    }
  });
}

Values read(const Tensor& tensor, const void* pointer) {
  Values values(static_cast<size_t>(tensor.count()));
  for_each_element(tensor, [&](int64_t memory, int64_t i) {
    values[static_cast<size_t>(i)] = load(tensor.format, pointer, memory);
  });
  return values;
}

void write(const Tensor& tensor, const Values& values, void* pointer) {
  for_each_element(tensor, [&](int64_t memory, int64_t i) {
    store(tensor.format, pointer, memory, values[static_cast<size_t>(i)]);
  });
}

Convolution2d shape_of(const Operation& op) {
  const bool from_x = op.kind != Kind::kDataGradient;
  const Tensor& x = from_x ? op.inputs[0] : op.output;
  const Tensor& weight = op.kind == Kind::kForward ? op.inputs[1] : from_x ? op.output : op.inputs[0];
  const Tensor& y = op.kind == Kind::kForward ? op.output : op.inputs[1];
  const Convolution& c = op.convolution;
  return {.N = x.dims[0],
          .H = x.dims[2],
          .W = x.dims[3],
          .C = x.dims[1],
          .O = weight.dims[0],
          .R = weight.dims[2],
          .S = weight.dims[3],
          .P = y.dims[2],
          .Q = y.dims[3],
          .stride_h = c.strides[0],
          .stride_w = c.strides[1],
          .dilation_h = c.dilations[0],
          .dilation_w = c.dilations[1],
          .pad_h = c.pre_paddings[0],
          .pad_w = c.pre_paddings[1],
          .flipped = c.flipped};
}

float apply(const Pointwise& f, float a, float b) {
  const auto lower = static_cast<float>(f.lower_clip), upper = static_cast<float>(f.upper_clip);
  const auto slope = static_cast<float>(f.lower_clip_slope);
  switch (f.mode) {
    case CUDNN_POINTWISE_ADD:
      return a + b;
    case CUDNN_POINTWISE_SUB:
      return a - b;
    case CUDNN_POINTWISE_MUL:
      return a * b;
    case CUDNN_POINTWISE_RELU_FWD:
      return a < lower ? lower + slope * (a - lower) : a > upper ? upper : a;
    case CUDNN_POINTWISE_RELU_BWD: {
      const float inside = b <= lower ? slope : b >= upper ? 0.0f : 1.0f;
      return inside == 0.0f ? 0.0f : a * inside;
    }
    case CUDNN_POINTWISE_SIGMOID_FWD:
      return 1.0f / (1.0f + std::exp(-a));
    default:  // CUDNN_POINTWISE_IDENTITY
      return a;
  }
}

class Interpreter {
 public:
  Interpreter(const Engine& engine, const std::map<int64_t, void*>& pointers) : engine_(engine), pointers_(pointers) {
    static std::atomic<int> runs{0};
    odd_run_ = runs++ % 2 == 1;
  }

  void run() {
    forget_outputs();
    for (const Operation& op : engine_.graph->operations) finish(op, result_of(op));
  }

 private:
  // Returns whether `op` starts from what its output holds.
  bool reads_output(const Operation& op) const {
    return op.is_convolution() ? op.beta != 0.0 : op.kind == Kind::kReduction && engine_.adds_to_sums;
  }

  void forget_outputs() {
    constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
    for (const Operation& op : engine_.graph->operations) {
      if (op.output.is_virtual || reads_output(op)) continue;
      void* pointer = pointers_.at(op.output.id);
      for_each_element(op.output, [&](int64_t memory, int64_t) { store(op.output.format, pointer, memory, kNan); });
    }
  }

  const Values& values_of(const Tensor& tensor) {
    const auto known = values_.find(tensor.id);
    if (known != values_.end()) return known->second;
    return values_.emplace(tensor.id, read(tensor, pointers_.at(tensor.id))).first->second;
  }

  Values result_of(const Operation& op) {
    switch (op.kind) {
      case Kind::kPointwise:
        return pointwise(op);
      case Kind::kReduction:
        return sum(op);
      default:
        return convolution(op);
    }
  }

  // Rounds to the type of the output and puts it where that lies.
  void finish(const Operation& op, Values result) {
    if (reads_output(op)) {
      const Values before = read(op.output, pointers_.at(op.output.id));
      const float factor = op.is_convolution() ? static_cast<float>(op.beta) : 1.0f;
      for (size_t i = 0; i < result.size(); ++i) result[i] += factor * before[i];
    }
    for (float& value : result) value = rounded(op.output.format, value);
    if (!op.output.is_virtual) write(op.output, result, pointers_.at(op.output.id));
    values_[op.output.id] = std::move(result);
  }

  Values factor_of(const Tensor& tensor) {
    Values factor = values_of(tensor);
    if (tensor.format == Format::kFloat && engine_.has(CUDNN_NUMERICAL_NOTE_TENSOR_CORE)) {
      for (float& value : factor) value = rounded_to_tf32(value);
    }
    return factor;
  }

  Values convolution(const Operation& op) {
    const Convolution2d shape = shape_of(op);
    const Values first = factor_of(op.inputs[0]), second = factor_of(op.inputs[1]);
    Values result = op.kind == Kind::kForward        ? convolve(shape, first, second)
                    : op.kind == Kind::kDataGradient ? convolve_data_gradient(shape, second, first)
                                                     : convolve_weight_gradient(shape, first, second);
    auto alpha = static_cast<float>(op.alpha);
    // The result is as if partial sums had met in another order.
    if (odd_run_ && engine_.has(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC)) alpha *= 1.0f + 0x1p-22f;
    const bool reduced = engine_.has(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION);
    for (float& value : result) value = rounded(reduced ? Format::kBf16 : Format::kFloat, alpha * value);
    return result;
  }

  Values pointwise(const Operation& op) {
    const Tensor& first = op.inputs[0];
    const Tensor& last = op.inputs.back();  // itself, if there is only one
    const Values &a = values_of(first), &b = values_of(last);
    const bool scaled = !op.pointwise.is_gradient();
    const float alpha1 = scaled ? static_cast<float>(op.alpha) : 1.0f;
    const float alpha2 = scaled ? static_cast<float>(op.beta) : 1.0f;
    Values y(static_cast<size_t>(op.output.count()));
    const Extent e(op.output);
    parallel_for(e.N * e.H * e.W, 64, [&](int64_t pixel) {
      const int64_t n = pixel / (e.H * e.W), h = pixel / e.W % e.H, w = pixel % e.W;
      for (int64_t c = 0; c < e.C; ++c) {
        y[static_cast<size_t>(pixel * e.C + c)] =
            apply(op.pointwise, alpha1 * a[broadcast(first, n, h, w, c)], alpha2 * b[broadcast(last, n, h, w, c)]);
      }
    });
    return y;
  }

  // The place among a tensor's values, where dimensions of 1 stand for any number.
  static size_t broadcast(const Tensor& tensor, int64_t n, int64_t h, int64_t w, int64_t c) {
    const Extent e(tensor);
    n = std::min(n, e.N - 1);
    h = std::min(h, e.H - 1);
    w = std::min(w, e.W - 1);
    c = std::min(c, e.C - 1);
    return static_cast<size_t>(((n * e.H + h) * e.W + w) * e.C + c);
  }

  Values sum(const Operation& op) {
    const Values& x = values_of(op.inputs[0]);
    std::vector<double> sums(static_cast<size_t>(op.output.count()));
    const Extent e(op.inputs[0]);
    for (int64_t pixel = 0; pixel < e.N * e.H * e.W; ++pixel) {
      const int64_t n = pixel / (e.H * e.W), h = pixel / e.W % e.H, w = pixel % e.W;
      for (int64_t c = 0; c < e.C; ++c)
        sums[broadcast(op.output, n, h, w, c)] += static_cast<double>(x[static_cast<size_t>(pixel * e.C + c)]);
    }
    return Values(sums.begin(), sums.end());
  }

  const Engine& engine_;
  const std::map<int64_t, void*>& pointers_;
  std::map<int64_t, Values> values_;
  bool odd_run_ = false;
};

}  // namespace

void interpret(const Engine& engine, const std::map<int64_t, void*>& pointers, void* workspace) {
  if (engine.workspace_bytes > 0) fill_with_nan(workspace, static_cast<size_t>(engine.workspace_bytes));
  Interpreter(engine, pointers).run();
}

}  // namespace depthstill::simt
