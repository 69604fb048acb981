#include "tests/onnx/reference.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <numeric>
#include <set>

#include "kernels/core/error.h"

namespace depthstill::test {
namespace {

using Inputs = std::vector<Array>;

int64_t product(const std::vector<int64_t>& sizes, size_t begin, size_t end) {
  return std::accumulate(sizes.begin() + static_cast<int64_t>(begin), sizes.begin() + static_cast<int64_t>(end),
                         int64_t{1}, std::multiplies<>());
}
int64_t product(const std::vector<int64_t>& sizes) { return product(sizes, 0, sizes.size()); }

Array zeros(std::vector<int64_t> shape) {
  const auto count = static_cast<size_t>(product(shape));
  return {std::move(shape), std::vector<double>(count)};
}

int64_t integer(const onnx::NodeProto& node, const std::string& name, int64_t otherwise) {
  const onnx::AttributeProto* found = find_attribute(node, name);
  return found ? found->i() : otherwise;
}

std::vector<int64_t> integers(const onnx::NodeProto& node, const std::string& name) {
  const onnx::AttributeProto* found = find_attribute(node, name);
  check(found != nullptr, node.name(), ": no attribute ", name);
  return {found->ints().begin(), found->ints().end()};
}

std::vector<int64_t> integers_or(const onnx::NodeProto& node, const std::string& name, std::vector<int64_t> otherwise) {
  return find_attribute(node, name) ? integers(node, name) : otherwise;
}

size_t axis_of(int64_t axis, const Array& x) {
  return static_cast<size_t>(axis < 0 ? axis + static_cast<int64_t>(x.shape.size()) : axis);
}

// The pads above, left, below, right.
std::vector<int64_t> conv_pads(const onnx::NodeProto& node, const Array& x, const Array& w,
                               const std::vector<int64_t>& strides, const std::vector<int64_t>& dilations) {
  const onnx::AttributeProto* rule = find_attribute(node, "auto_pad");
  if (!rule) return integers(node, "pads");
  check(rule->s() == "SAME_UPPER", node.name(), ": auto_pad ", rule->s());
  std::vector<int64_t> pads(4);
  for (size_t d = 0; d < 2; ++d) {
    const int64_t size = x.shape[2 + d], outputs = (size + strides[d] - 1) / strides[d];
    const int64_t total =
        std::max<int64_t>((outputs - 1) * strides[d] + dilations[d] * (w.shape[2 + d] - 1) + 1 - size, 0);
    pads[d] = total / 2;
    pads[2 + d] = total - total / 2;
  }
  return pads;
}

Array conv(const onnx::NodeProto& node, const Inputs& in) {
  const Array &x = in[0], &w = in[1];
  const auto strides = integers(node, "strides"), dilations = integers_or(node, "dilations", {1, 1});
  const auto pads = conv_pads(node, x, w, strides, dilations);
  const int64_t group = integer(node, "group", 1), N = x.shape[0], C = x.shape[1], O = w.shape[0], I = w.shape[1];
  check(I * group == C && O % group == 0, node.name(), ": channels do not fit");
  std::vector<int64_t> shape{N, O};
  for (size_t d = 0; d < 2; ++d)
    shape.push_back((x.shape[2 + d] + pads[d] + pads[2 + d] - dilations[d] * (w.shape[2 + d] - 1) - 1) / strides[d] +
                    1);
  Array y = zeros(shape);
  const int64_t H = x.shape[2], W = x.shape[3], P = shape[2], Q = shape[3], R = w.shape[2], S = w.shape[3];
  for (int64_t n = 0; n < N; ++n)
    for (int64_t o = 0; o < O; ++o) {
      double* const out = &y.values[static_cast<size_t>((n * O + o) * P * Q)];
      if (in.size() > 2) std::fill_n(out, P * Q, in[2].values[static_cast<size_t>(o)]);
      for (int64_t i = 0; i < I; ++i) {
        const double* const map = &x.values[static_cast<size_t>((n * C + o / (O / group) * I + i) * H * W)];
        for (int64_t r = 0; r < R; ++r)
          for (int64_t s = 0; s < S; ++s) {
            const double weight = w.values[static_cast<size_t>(((o * I + i) * R + r) * S + s)];
            for (int64_t p = 0; p < P; ++p) {
              const int64_t h = p * strides[0] - pads[0] + r * dilations[0];
              if (h < 0 || h >= H) continue;
              for (int64_t q = 0; q < Q; ++q) {
                const int64_t v = q * strides[1] - pads[1] + s * dilations[1];
                if (v >= 0 && v < W) out[p * Q + q] += weight * map[h * W + v];
              }
            }
          }
      }
    }
  return y;
}

Array max_pool(const onnx::NodeProto& node, const Inputs& in) {
  const Array& x = in[0];
  const auto kernel = integers(node, "kernel_shape"), strides = integers(node, "strides"),
             pads = integers(node, "pads");
  std::vector<int64_t> shape{x.shape[0], x.shape[1]};
  for (size_t d = 0; d < 2; ++d) shape.push_back((x.shape[2 + d] + pads[d] + pads[2 + d] - kernel[d]) / strides[d] + 1);
  Array y = zeros(shape);
  const int64_t H = x.shape[2], W = x.shape[3];
  for (int64_t i = 0; i < static_cast<int64_t>(y.values.size()); ++i) {
    const int64_t q = i % shape[3], p = i / shape[3] % shape[2], map = i / (shape[2] * shape[3]);
    double best = -INFINITY;
    for (int64_t h = p * strides[0] - pads[0]; h < p * strides[0] - pads[0] + kernel[0]; ++h)
      for (int64_t w = q * strides[1] - pads[1]; w < q * strides[1] - pads[1] + kernel[1]; ++w)
        if (h >= 0 && h < H && w >= 0 && w < W)
          best = std::max(best, x.values[static_cast<size_t>((map * H + h) * W + w)]);
    y.values[static_cast<size_t>(i)] = best;
  }
  return y;
}

// Resizes bilinearly over the last two dimensions.
Array resize(const onnx::NodeProto& node, const Inputs& in) {
  const Array& x = in[0];
  const std::string rule = find_attribute(node, "coordinate_transformation_mode")->s();
  check(find_attribute(node, "mode")->s() == "linear" && (rule == "align_corners" || rule == "half_pixel"),
        node.name());
  std::vector<int64_t> shape = x.shape;
  for (size_t d = 0; d < 4; ++d) {
    shape[d] = in.size() == 4 ? static_cast<int64_t>(in[3].values[d])
                              : static_cast<int64_t>(static_cast<double>(x.shape[d]) * in[2].values[d]);
  }
  check(shape[0] == x.shape[0] && shape[1] == x.shape[1], node.name(), ": images and channels stay");
  const auto source = [&](int64_t i, size_t d) {
    const auto from = static_cast<double>(x.shape[d]), to = static_cast<double>(shape[d]), at = static_cast<double>(i);
    const double s = rule == "half_pixel" ? (at + 0.5) * from / to - 0.5 : to > 1 ? at * (from - 1) / (to - 1) : 0.0;
    return std::clamp(s, 0.0, from - 1);
  };
  Array y = zeros(shape);
  const int64_t H = x.shape[2], W = x.shape[3];
  for (int64_t i = 0; i < static_cast<int64_t>(y.values.size()); ++i) {
    const double v = source(i % shape[3], 3), u = source(i / shape[3] % shape[2], 2);
    const auto h = static_cast<int64_t>(u), w = static_cast<int64_t>(v);
    const double* const map = &x.values[static_cast<size_t>(i / (shape[2] * shape[3]) * H * W)];
    const auto at = [&](int64_t row, int64_t column) {
      return map[std::min(row, H - 1) * W + std::min(column, W - 1)];
    };
    const double a = u - static_cast<double>(h), b = v - static_cast<double>(w);
    y.values[static_cast<size_t>(i)] =
        (1 - a) * ((1 - b) * at(h, w) + b * at(h, w + 1)) + a * ((1 - b) * at(h + 1, w) + b * at(h + 1, w + 1));
  }
  return y;
}

// NumPy's broadcasting.
template <class F>
Array broadcast(const Array& a, const Array& b, F f) {
  const size_t rank = std::max(a.shape.size(), b.shape.size());
  const auto size = [&](const Array& x, size_t d) {
    return d + x.shape.size() < rank ? 1 : x.shape[d + x.shape.size() - rank];
  };
  std::vector<int64_t> shape(rank);
  for (size_t d = 0; d < rank; ++d) {
    shape[d] = std::max(size(a, d), size(b, d));
    check(size(a, d) == size(b, d) || size(a, d) == 1 || size(b, d) == 1, "shapes do not broadcast");
  }
  Array y = zeros(shape);
  for (size_t i = 0; i < y.values.size(); ++i) {
    size_t at[2] = {0, 0};
    auto rest = static_cast<int64_t>(i), stride = product(shape);
    int64_t strides[2] = {static_cast<int64_t>(a.values.size()), static_cast<int64_t>(b.values.size())};
    for (size_t d = 0; d < rank; ++d) {
      stride /= shape[d];
      const int64_t index = rest / stride;
      rest %= stride;
      int k = 0;
      for (const Array* x : {&a, &b}) {
        strides[k] /= size(*x, d);
        if (size(*x, d) > 1) at[k] += static_cast<size_t>(index * strides[k]);
        ++k;
      }
    }
    y.values[i] = f(a.values[at[0]], b.values[at[1]]);
  }
  return y;
}

template <class F>
Array map(Array x, F f) {
  for (double& value : x.values) value = f(value);
  return x;
}

Array concat(const onnx::NodeProto& node, const Inputs& in) {
  const size_t axis = axis_of(integer(node, "axis", 0), in[0]);
  Array y{in[0].shape, {}};
  y.shape[axis] = 0;
  for (const Array& x : in) y.shape[axis] += x.shape[axis];
  for (int64_t outer = 0; outer < product(y.shape, 0, axis); ++outer)
    for (const Array& x : in) {
      const int64_t run = product(x.shape, axis, x.shape.size());
      y.values.insert(y.values.end(), x.values.begin() + outer * run, x.values.begin() + (outer + 1) * run);
    }
  return y;
}

Array transpose(const onnx::NodeProto& node, const Inputs& in) {
  const Array& x = in[0];
  const auto perm = integers(node, "perm");
  Array y = zeros(x.shape);
  const size_t rank = perm.size();
  std::vector<int64_t> stride(rank, 1);
  for (size_t d = rank - 1; d > 0; --d) stride[d - 1] = stride[d] * x.shape[d];
  for (size_t d = 0; d < rank; ++d) y.shape[d] = x.shape[static_cast<size_t>(perm[d])];
  for (size_t i = 0; i < y.values.size(); ++i) {
    auto rest = static_cast<int64_t>(i);
    int64_t at = 0;
    for (size_t d = rank; d-- > 0;) {
      at += rest % y.shape[d] * stride[static_cast<size_t>(perm[d])];
      rest /= y.shape[d];
    }
    y.values[i] = x.values[static_cast<size_t>(at)];
  }
  return y;
}

Array softmax(const onnx::NodeProto& node, const Inputs& in) {
  Array y = in[0];
  check(axis_of(integer(node, "axis", -1), y) + 1 == y.shape.size(), node.name(), ": over the last dimension only");
  const auto run = static_cast<size_t>(y.shape.back());
  for (size_t begin = 0; begin < y.values.size(); begin += run) {
    const auto first = y.values.begin() + static_cast<int64_t>(begin), last = first + static_cast<int64_t>(run);
    const double most = *std::max_element(first, last);
    double sum = 0;
    for (auto v = first; v != last; ++v) sum += * v = std::exp(*v - most);
    for (auto v = first; v != last; ++v) *v /= sum;
  }
  return y;
}

// (..., m, k) x (..., k, n), the second one also without the leading dimensions.
Array mat_mul(const onnx::NodeProto& node, const Inputs& in) {
  const Array &a = in[0], &b = in[1];
  const size_t ra = a.shape.size(), rb = b.shape.size();
  const int64_t m = a.shape[ra - 2], k = a.shape[ra - 1], n = b.shape[rb - 1];
  check(b.shape[rb - 2] == k && (rb == 2 || product(a.shape, 0, ra - 2) == product(b.shape, 0, rb - 2)), node.name());
  Array y = zeros(a.shape);
  y = zeros([&] {
    auto shape = a.shape;
    shape.back() = n;
    return shape;
  }());
  for (int64_t batch = 0; batch < product(a.shape, 0, ra - 2); ++batch)
    for (int64_t i = 0; i < m; ++i)
      for (int64_t l = 0; l < k; ++l) {
        const double factor = a.values[static_cast<size_t>((batch * m + i) * k + l)];
        const double* const row = &b.values[static_cast<size_t>(((rb == 2 ? 0 : batch) * k + l) * n)];
        for (int64_t j = 0; j < n; ++j) y.values[static_cast<size_t>((batch * m + i) * n + j)] += factor * row[j];
      }
  return y;
}

Array squeeze(const onnx::NodeProto&, const Inputs& in) {
  Array y = in[0];
  const auto axis = static_cast<int64_t>(in[1].values.at(0));
  check(y.shape.at(static_cast<size_t>(axis)) == 1 && in[1].values.size() == 1, "squeeze: not a single one");
  y.shape.erase(y.shape.begin() + axis);
  return y;
}

Array shape(const onnx::NodeProto& node, const Inputs& in) {
  const auto rank = static_cast<int64_t>(in[0].shape.size());
  const int64_t begin = integer(node, "start", 0), end = integer(node, "end", rank);
  return {{end - begin}, {in[0].shape.begin() + begin, in[0].shape.begin() + end}};
}

// Kernels have the size of the stride, and there is no padding.
Array conv_transpose(const onnx::NodeProto& node, const Inputs& in) {
  const Array &x = in[0], &w = in[1];
  const int64_t N = x.shape[0], I = x.shape[1], H = x.shape[2], W = x.shape[3], O = w.shape[1], K = w.shape[2];
  check(integers(node, "strides") == std::vector<int64_t>{K, K} && w.shape[3] == K && w.shape[0] == I, node.name());
  Array y = zeros({N, O, K * H, K * W});
  for (int64_t i = 0; i < static_cast<int64_t>(y.values.size()); ++i) {
    const int64_t q = i % (K * W), p = i / (K * W) % (K * H), o = i / (K * K * H * W) % O, n = i / (K * K * H * W * O);
    double sum = in[2].values[static_cast<size_t>(o)];
    for (int64_t c = 0; c < I; ++c)
      sum += x.values[static_cast<size_t>(((n * I + c) * H + p / K) * W + q / K)] *
             w.values[static_cast<size_t>(((c * O + o) * K + p % K) * K + q % K)];
    y.values[static_cast<size_t>(i)] = sum;
  }
  return y;
}

Array layer_norm(const onnx::NodeProto& node, const Inputs& in) {
  Array y = in[0];
  check(axis_of(integer(node, "axis", -1), y) + 1 == y.shape.size(), node.name(), ": over the last dimension only");
  const auto run = static_cast<size_t>(y.shape.back());
  const double n = static_cast<double>(run), eps = find_attribute(node, "epsilon")->f();
  for (size_t begin = 0; begin < y.values.size(); begin += run) {
    double* const row = &y.values[begin];
    const double mean = std::accumulate(row, row + run, 0.0) / n;
    double squares = 0;
    for (size_t i = 0; i < run; ++i) squares += (row[i] - mean) * (row[i] - mean);
    const double rstd = 1 / std::sqrt(squares / n + eps);
    for (size_t i = 0; i < run; ++i) row[i] = (row[i] - mean) * rstd * in[1].values[i] + in[2].values[i];
  }
  return y;
}

Array reshape(const onnx::NodeProto& node, const Inputs& in) {
  Array y = in[0];
  y.shape.clear();
  for (size_t d = 0; d < in[1].values.size(); ++d) {
    const auto size = static_cast<int64_t>(in[1].values[d]);
    y.shape.push_back(size == 0 ? in[0].shape.at(d) : size);
  }
  check(product(y.shape) == product(in[0].shape), node.name(), ": another number of elements");
  return y;
}

Array expand(const onnx::NodeProto&, const Inputs& in) {
  std::vector<int64_t> sizes;
  for (const double size : in[1].values) sizes.push_back(static_cast<int64_t>(size));
  return broadcast(in[0], zeros(sizes), std::plus<>());
}

// Slices one axis.
Array slice(const onnx::NodeProto& node, const Inputs& in) {
  const Array& x = in[0];
  const auto begin = static_cast<int64_t>(in[1].values.at(0)), end = static_cast<int64_t>(in[2].values.at(0));
  const size_t axis = axis_of(static_cast<int64_t>(in[3].values.at(0)), x);
  check(in.size() == 4 && 0 <= begin && begin < end && end <= x.shape[axis], node.name());
  Array y{x.shape, {}};
  y.shape[axis] = end - begin;
  const int64_t inner = product(x.shape, axis + 1, x.shape.size());
  for (int64_t outer = 0; outer < product(x.shape, 0, axis); ++outer) {
    const auto first = x.values.begin() + outer * x.shape[axis] * inner;
    y.values.insert(y.values.end(), first + begin * inner, first + end * inner);
  }
  return y;
}

Array run(const onnx::NodeProto& node, const Inputs& in) {
  const std::string& op = node.op_type();
  if (op == "Conv") return conv(node, in);
  if (op == "MaxPool") return max_pool(node, in);
  if (op == "Resize") return resize(node, in);
  if (op == "Concat") return concat(node, in);
  if (op == "Transpose") return transpose(node, in);
  if (op == "Softmax") return softmax(node, in);
  if (op == "MatMul") return mat_mul(node, in);
  if (op == "Squeeze") return squeeze(node, in);
  if (op == "Shape") return shape(node, in);
  if (op == "ConvTranspose") return conv_transpose(node, in);
  if (op == "LayerNormalization") return layer_norm(node, in);
  if (op == "Reshape") return reshape(node, in);
  if (op == "Expand") return expand(node, in);
  if (op == "Slice") return slice(node, in);
  if (op == "Erf") return map(in[0], [](double x) { return std::erf(x); });
  if (op == "Identity") return in[0];
  if (op == "Relu") return map(in[0], [](double x) { return std::max(x, 0.0); });
  if (op == "Exp") return map(in[0], [](double x) { return std::exp(x); });
  if (op == "Sigmoid") return map(in[0], [](double x) { return 1 / (1 + std::exp(-x)); });
  if (op == "Clip") return map(in[0], [&](double x) { return std::clamp(x, in[1].values.at(0), in[2].values.at(0)); });
  if (op == "Add") return broadcast(in[0], in[1], std::plus<>());
  if (op == "Sub") return broadcast(in[0], in[1], std::minus<>());
  if (op == "Mul") return broadcast(in[0], in[1], std::multiplies<>());
  if (op == "Div") return broadcast(in[0], in[1], std::divides<>());
  fail("no reference for ", op);
}

template <class T>
void append(const std::string& raw, std::vector<double>& values) {
  for (size_t at = 0; at + sizeof(T) <= raw.size(); at += sizeof(T)) {
    T value;
    std::memcpy(&value, raw.data() + at, sizeof(T));
    values.push_back(static_cast<double>(value));
  }
}

Array array_of(const onnx::TensorProto& tensor) {
  Array array{{tensor.dims().begin(), tensor.dims().end()}, {}};
  if (tensor.data_type() == onnx::TensorProto::INT64)
    append<int64_t>(tensor.raw_data(), array.values);
  else
    append<float>(tensor.raw_data(), array.values);
  check(product(array.shape) == static_cast<int64_t>(array.values.size()), tensor.name(), ": wrong size");
  return array;
}

}  // namespace

onnx::ModelProto read_model(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  onnx::ModelProto model;
  check(model.ParseFromIstream(&in), path, ": not an ONNX model");
  return model;
}

std::vector<std::string> faults(const onnx::GraphProto& graph) {
  std::vector<std::string> found;
  std::set<std::string> defined, used;
  const auto define = [&](const std::string& name) {
    if (name.empty() || !defined.insert(name).second) found.push_back("defined twice: " + name);
  };
  for (const onnx::ValueInfoProto& input : graph.input()) define(input.name());
  for (const onnx::TensorProto& constant : graph.initializer()) define(constant.name());
  for (const onnx::NodeProto& node : graph.node()) {
    for (const std::string& name : node.input()) {
      if (name.empty()) continue;
      if (!defined.contains(name)) found.push_back(node.name() + " reads before it is defined: " + name);
      used.insert(name);
    }
    for (const std::string& name : node.output()) define(name);
  }
  for (const onnx::ValueInfoProto& output : graph.output()) {
    if (!defined.contains(output.name())) found.push_back("no such output: " + output.name());
    used.insert(output.name());
  }
  for (const std::string& name : defined)
    if (!used.contains(name)) found.push_back("never used: " + name);
  return found;
}

const onnx::AttributeProto* find_attribute(const onnx::NodeProto& node, const std::string& name) {
  for (const onnx::AttributeProto& attribute : node.attribute())
    if (attribute.name() == name) return &attribute;
  return nullptr;
}

int count_nodes(const onnx::GraphProto& graph, const std::string& op) {
  return static_cast<int>(std::count_if(graph.node().begin(), graph.node().end(),
                                        [&](const onnx::NodeProto& node) { return node.op_type() == op; }));
}

std::string metadata(const onnx::ModelProto& model, const std::string& key) {
  for (const onnx::StringStringEntryProto& entry : model.metadata_props())
    if (entry.key() == key) return entry.value();
  return "";
}

Array evaluate(const onnx::GraphProto& graph, const Array& input, int output) {
  std::map<std::string, Array> values;
  values[""] = {};
  values[graph.input(0).name()] = input;
  for (const onnx::TensorProto& constant : graph.initializer()) values[constant.name()] = array_of(constant);
  for (const onnx::NodeProto& node : graph.node()) {
    Inputs in;
    for (const std::string& name : node.input()) in.push_back(values.at(name));
    values[node.output(0)] = run(node, in);
  }
  return values.at(graph.output(output).name());
}

}  // namespace depthstill::test
