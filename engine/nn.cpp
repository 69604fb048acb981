#include "engine/nn.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/profile.h"

namespace depthstill {
namespace {

int64_t windowed_size(Padding padding, int64_t size, int kernel, int stride, int dilation) {
  const Pads pads = pads_of(padding, size, kernel, stride, dilation);
  return (size + pads.before + pads.after - static_cast<int64_t>(dilation) * (kernel - 1) - 1) / stride + 1;
}

// Calls f(index in memory form, index in file form) for every element.
template <class F>
void for_each_pair(const Shape& memory, Layout layout, F f) {
  if (layout == Layout::kPlain) {
    for (int64_t i = 0; i < memory.numel(); ++i) f(i, i);
    return;
  }
  if (layout == Layout::kConvTranspose) {
    const int64_t area = memory[0] * memory[1], outputs = memory[2], inputs = memory[3];
    int64_t at = 0;
    for (int64_t rs = 0; rs < area; ++rs)
      for (int64_t o = 0; o < outputs; ++o)
        for (int64_t i = 0; i < inputs; ++i) f(at++, (i * outputs + o) * area + rs);
    return;
  }
  // Depthwise (R, S, C) is (1, R, S, C) transposed to (C, 1, R, S), so both are: channel last <-> channel before R, S.
  const bool dense = layout == Layout::kConv;
  const int64_t outer = dense ? memory[0] : 1, channels = memory[dense ? 3 : 2];
  const int64_t area = memory.numel() / (outer * channels);
  int64_t at = 0;
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t rs = 0; rs < area; ++rs)
      for (int64_t c = 0; c < channels; ++c) f(at++, (o * channels + c) * area + rs);
}

Shape to_memory_shape(const Shape& file, Layout layout) {
  if (layout == Layout::kPlain) return file;
  check(file.rank() == 4, "weight: expected four dimensions, got ", file);
  if (layout == Layout::kConv) return {file[0], file[2], file[3], file[1]};
  if (layout == Layout::kConvTranspose) return {file[2], file[3], file[1], file[0]};
  check(file[1] == 1, "depthwise weight: expected (C, 1, R, S), got ", file);
  return {file[2], file[3], file[0]};
}

}  // namespace

Shape to_file_shape(const Shape& memory, Layout layout) {
  if (layout == Layout::kConv) return {memory[0], memory[3], memory[1], memory[2]};
  if (layout == Layout::kDepthwise) return {memory[2], 1, memory[0], memory[1]};
  if (layout == Layout::kConvTranspose) return {memory[3], memory[2], memory[0], memory[1]};
  return memory;
}

Tensor to_file_layout(const Tensor& memory, Layout layout) {
  if (layout == Layout::kPlain) return memory;
  Tensor file = empty(to_file_shape(memory.shape(), layout));
  const float* from = memory.data<float>();
  float* to = file.data<float>();
  for_each_pair(memory.shape(), layout, [&](int64_t m, int64_t f) { to[f] = from[m]; });
  return file;
}

Tensor from_file_layout(const Tensor& file, Layout layout) {
  if (layout == Layout::kPlain) return file;
  Tensor memory = empty(to_memory_shape(file.shape(), layout));
  const float* from = file.data<float>();
  float* to = memory.data<float>();
  for_each_pair(memory.shape(), layout, [&](int64_t m, int64_t f) { to[m] = from[f]; });
  return memory;
}

void Module::collect(const std::string& prefix, std::vector<StateEntry>& out) const {
  for (StateEntry entry : own_) {
    entry.name = prefix + entry.name;
    out.push_back(std::move(entry));
  }
  for (const Child& child : children_) child.module->collect(prefix + child.name + ".", out);
}

std::vector<StateEntry> Module::state() const {
  std::vector<StateEntry> out;
  collect("", out);
  return out;
}

std::vector<StateEntry> Module::parameters() const {
  std::vector<StateEntry> out = state();
  std::erase_if(out, [](const StateEntry& entry) { return !entry.trainable; });
  return out;
}

std::vector<Tensor> Module::parameter_tensors() const {
  std::vector<Tensor> out;
  for (const StateEntry& entry : parameters()) out.push_back(*entry.tensor);
  return out;
}

int64_t Module::parameter_count() const {
  int64_t count = 0;
  for (const StateEntry& entry : state()) count += entry.trainable || entry.frozen ? entry.tensor->numel() : 0;
  return count;
}

void Module::to(Device device) {
  for (const StateEntry& entry : state()) {
    if (entry.tensor->dtype() != DType::kFloat || entry.tensor->device() == device) continue;
    *entry.tensor = to_device(entry.tensor->detach(), device);
    if (entry.trainable) entry.tensor->set_requires_grad();
  }
}

void Module::train(bool on) {
  training_ = on && !frozen_;
  for (const Child& child : children_) child.module->train(on);
}

bool Module::freeze_below(std::string_view prefix) {
  bool found = false;
  if (!path_.empty() && (path_ + ".").starts_with(prefix)) {
    found = true;
    frozen_ = true;
    training_ = false;
    for (StateEntry& entry : own_) {
      entry.frozen = entry.frozen || entry.trainable;
      entry.trainable = false;
      *entry.tensor = entry.tensor->detach();
    }
  }
  for (const Child& child : children_) found = child.module->freeze_below(prefix) || found;
  return found;
}

void Module::freeze(std::string_view prefix) {
  check(freeze_below(prefix), "freeze: expected a module below ", path_.empty() ? "the root" : path_,
        " whose name begins with '", prefix, "', found none");
}

void Module::clear_grads() {
  for (const StateEntry& entry : parameters()) entry.tensor->clear_grad();
}

void Module::add_parameter(std::string name, Tensor& member, const Shape& shape, Layout layout) {
  member = zeros(shape);
  member.set_requires_grad();
  own_.push_back({std::move(name), &member, layout, true});
}

void Module::add_buffer(std::string name, Tensor& member, const Shape& shape, DType dtype) {
  member = zeros(shape, dtype);
  own_.push_back({std::move(name), &member, Layout::kPlain, false});
}

void Module::add_child(std::string name, Module& child) {
  child.lengthen_path(name);
  children_.push_back({std::move(name), &child});
}

// Children are made before their parents, so names arrive from the innermost to the outermost.
void Module::lengthen_path(const std::string& front) {
  path_ = path_.empty() ? front : front + "." + path_;
  for (const Child& child : children_) child.module->lengthen_path(front);
}

Pads pads_of(Padding padding, int64_t size, int kernel, int stride, int dilation) {
  const int reach = dilation * (kernel - 1);
  if (padding == Padding::kEqual) return {reach / 2, reach / 2};
  const int64_t outputs = (size + stride - 1) / stride;
  const int total = static_cast<int>(std::max<int64_t>((outputs - 1) * stride + reach + 1 - size, 0));
  return {total / 2, total - total / 2};
}

Conv2d::Conv2d(const Conv2dConfig& config) : config_(config) {
  add_parameter("weight", weight, {config.out, config.kernel, config.kernel, config.in}, Layout::kConv);
  if (config.bias) add_parameter("bias", bias, {config.out});
}

Tensor Conv2d::forward(const Tensor& x) const {
  const ProfileRange range("fwd", path());
  return conv2d(x, weight, bias, options_for(x));
}

ConvolutionResult Conv2d::forward(const ConvolutionResult& x, BatchNorm2d* below, const BatchNorm2d& above) const {
  check(!config_.bias && config_.activation == Activation::kNone,
        "conv2d: expected neither bias nor activation before a batch norm, at ", path());
  const Tensor guess = above.wants_moments() ? above.running_mean : Tensor();
  if (below != nullptr) {
    const BatchNormStatistics statistics = below->statistics(x.y, x.moments);
    const ProfileRange range("fwd", path());
    return batch_norm_conv2d(x.y, statistics, below->weight, below->bias, below->activation(), weight, options_for(x.y),
                             guess);
  }
  if (!guess.defined()) return {forward(x.y), {}};
  const ProfileRange range("fwd", path());
  return conv2d_moments(x.y, weight, guess, options_for(x.y));
}

Conv2dOptions Conv2d::options_for(const Tensor& x) const {
  check(x.shape().rank() == 4, "conv2d: expected x (N, H, W, C), got ", x.shape());
  const Conv2dConfig& c = config_;
  const Pads rows = pads_of(c.padding, x.size(1), c.kernel, c.stride, c.dilation);
  const Pads columns = pads_of(c.padding, x.size(2), c.kernel, c.stride, c.dilation);
  return {c.stride, c.dilation, rows.before, rows.after, columns.before, columns.after, c.activation};
}

Tensor Conv2d::forward(const Tensor& x, int pad_top) const {
  const int pad = padding();
  const ProfileRange range("fwd", path());
  return conv2d(x, weight, bias, {config_.stride, config_.dilation, pad_top, pad, pad, pad, config_.activation});
}

Tensor Conv2d::forward_head(const Tensor& x, Activation last) const {
  const ProfileRange range("fwd", path());
  return head_conv(x, weight, bias, last);
}

int64_t Conv2d::output_size(int64_t size) const {
  return windowed_size(config_.padding, size, config_.kernel, config_.stride, config_.dilation);
}

int64_t Conv2d::macs_per_pixel() const { return config_.in * config_.out * config_.kernel * config_.kernel; }

ConvGeometry Conv2d::geometry() const { return {config_.stride, config_.dilation, config_.padding, Layout::kConv}; }

DepthwiseConv2d::DepthwiseConv2d(int64_t channels, int stride, int dilation, int kernel, Padding padding)
    : channels_(channels), stride_(stride), dilation_(dilation), kernel_(kernel), padding_(padding) {
  add_parameter("weight", weight, {kernel, kernel, channels}, Layout::kDepthwise);
}

Tensor DepthwiseConv2d::forward(const Tensor& x) const {
  const ProfileRange range("fwd", path());
  return depthwise_conv2d(x, weight, options_for(x));
}

ConvolutionResult DepthwiseConv2d::forward(const ConvolutionResult& x, BatchNorm2d* below,
                                           const BatchNorm2d& above) const {
  if (below == nullptr) return {forward(x.y), {}};
  const BatchNormStatistics statistics = below->statistics(x.y, x.moments);
  const ProfileRange range("fwd", path());
  return batch_norm_depthwise_conv2d(x.y, statistics, below->weight, below->bias, below->activation(), weight,
                                     options_for(x.y), above.wants_moments());
}

DepthwiseConv2dOptions DepthwiseConv2d::options_for(const Tensor& x) const {
  check(x.shape().rank() == 4, "depthwise_conv2d: expected x (N, H, W, C), got ", x.shape());
  return {stride_, dilation_, pads_of(padding_, x.size(1), kernel_, stride_, dilation_).before,
          pads_of(padding_, x.size(2), kernel_, stride_, dilation_).before};
}

int64_t DepthwiseConv2d::output_size(int64_t size) const {
  return windowed_size(padding_, size, kernel_, stride_, dilation_);
}

int64_t DepthwiseConv2d::macs_per_pixel() const { return kernel_ * kernel_ * channels_; }

ConvGeometry DepthwiseConv2d::geometry() const { return {stride_, dilation_, padding_, Layout::kDepthwise}; }

Linear::Linear(int64_t in, int64_t out, bool with_bias) {
  add_parameter("weight", weight, {out, in});
  if (with_bias) add_parameter("bias", bias, {out});
}

Tensor Linear::forward(const Tensor& x) const {
  const ProfileRange range("fwd", path());
  return linear(x, weight, bias);
}

LayerNorm::LayerNorm(int64_t channels, float eps) : eps_(eps) {
  add_parameter("weight", weight, {channels});
  add_parameter("bias", bias, {channels});
  const std::vector<float> ones(static_cast<size_t>(channels), 1.0f);
  copy_(weight, tensor<float>({channels}, ones));
}

Tensor LayerNorm::forward(const Tensor& x) const {
  const ProfileRange range("fwd", path());
  return layer_norm(x, weight, bias, eps_);
}

ConvTranspose2d::ConvTranspose2d(int64_t in, int64_t out, int stride) : stride_(stride) {
  add_parameter("weight", weight, {stride, stride, out, in}, Layout::kConvTranspose);
  add_parameter("bias", bias, {out});
}

Tensor ConvTranspose2d::forward(const Tensor& x) const {
  const ProfileRange range("fwd", path());
  return conv_transpose2d(x, weight, bias, stride_);
}

BatchNorm2d::BatchNorm2d(int64_t channels, Activation activation, float eps) : activation_(activation), eps_(eps) {
  add_parameter("weight", weight, {channels});
  add_parameter("bias", bias, {channels});
  add_buffer("running_mean", running_mean, {channels});
  add_buffer("running_var", running_var, {channels});
  add_buffer("num_batches_tracked", num_batches_tracked, {}, DType::kInt64);
  const std::vector<float> ones(static_cast<size_t>(channels), 1.0f);
  copy_(weight, tensor<float>({channels}, ones));
  copy_(running_var, tensor<float>({channels}, ones));
}

BatchNormOptions BatchNorm2d::options() const {
  return {.training = training(), .eps = eps_, .activation = activation_};
}

Tensor BatchNorm2d::forward(const Tensor& x, const Tensor& moments) {
  const ProfileRange range("fwd", path());
  if (measuring_) measure(x);
  if (training()) ++*num_batches_tracked.data<int64_t>();
  return batch_norm(x, weight, bias, running_mean, running_var, options(), moments);
}

BatchNormStatistics BatchNorm2d::statistics(const Tensor& x, const Tensor& moments) {
  const ProfileRange range("fwd", path());
  check(!measuring_, "batch_norm: measuring needs the normalised map");
  if (training()) ++*num_batches_tracked.data<int64_t>();
  return batch_norm_statistics(x, running_mean, running_var, options(), moments);
}

void BatchNorm2d::start_measuring() {
  measuring_ = true;
  measured_batches_ = 0;
  mean_sum_.assign(static_cast<size_t>(weight.numel()), 0.0);
  square_sum_ = mean_sum_;
}

void BatchNorm2d::measure(const Tensor& x) {
  const NoGrad no_grad;
  Tensor mean = zeros_like(running_mean), var = zeros_like(running_var);
  batch_norm(x, weight, bias, mean, var, {.training = true, .momentum = 1.0f, .eps = eps_});
  const std::vector<float> means = to_vector<float>(mean), vars = to_vector<float>(var);
  // The op gives the unbiased variance; what a batch is normalised with is the biased one.
  const double n = static_cast<double>(x.numel()) / static_cast<double>(weight.numel()), biased = (n - 1.0) / n;
  for (size_t c = 0; c < means.size(); ++c) {
    mean_sum_[c] += means[c];
    square_sum_[c] += vars[c] * biased + static_cast<double>(means[c]) * means[c];
  }
  ++measured_batches_;
}

void BatchNorm2d::adopt_measured() {
  check(measuring_ && measured_batches_ > 0, "batch_norm: no batch was measured");
  std::vector<float> g = to_vector<float>(weight), b = to_vector<float>(bias);
  std::vector<float> mean = to_vector<float>(running_mean), var = to_vector<float>(running_var);
  for (size_t c = 0; c < g.size(); ++c) {
    const double n = static_cast<double>(measured_batches_), new_mean = mean_sum_[c] / n;
    const double new_var = std::max(square_sum_[c] / n - new_mean * new_mean, 0.0);
    const double slope = g[c] / std::sqrt(static_cast<double>(var[c]) + eps_);
    b[c] = static_cast<float>(b[c] + (new_mean - mean[c]) * slope);
    g[c] = static_cast<float>(slope * std::sqrt(new_var + eps_));
    mean[c] = static_cast<float>(new_mean);
    var[c] = static_cast<float>(new_var);
  }
  const Shape channels = weight.shape();
  copy_(weight, tensor<float>(channels, g));
  copy_(bias, tensor<float>(channels, b));
  copy_(running_mean, tensor<float>(channels, mean));
  copy_(running_var, tensor<float>(channels, var));
  measuring_ = false;
}

Tensor forward_chain(const Tensor& x, std::span<const ConvNorm> chain) {
  ConvolutionResult last{x, {}};
  BatchNorm2d* below = nullptr;  // norm of the last convolution, still to come
  for (const ConvNorm& link : chain) {
    if (below != nullptr && below->measuring()) {
      last = {below->forward(last.y), {}};
      below = nullptr;
    }
    last = link.conv->forward(last, below, *link.norm);
    below = link.norm;
  }
  return below != nullptr ? below->forward(last.y, last.moments) : x;
}

}  // namespace depthstill
