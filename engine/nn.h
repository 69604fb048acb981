// Modules: named parameters and buffers, and the layers that own them. Names are those of the published checkpoints, so
// a state dict is a walk over state().
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/ops.h"
#include "engine/tensor.h"

namespace depthstill {

// A Layout is the order in which memory holds the elements of a tensor whose file form is PyTorch's.
enum class Layout : uint8_t {
  kPlain,          // the file's order
  kConv,           // file (O, I, R, S), memory (O, R, S, I)
  kDepthwise,      // file (C, 1, R, S), memory (R, S, C)
  kConvTranspose,  // file (I, O, R, S), memory (R, S, O, I)
};

// The file form of a shape or of an fp32 CPU tensor in memory form, and back.
Shape to_file_shape(const Shape& memory, Layout layout);
Tensor to_file_layout(const Tensor& memory, Layout layout);
Tensor from_file_layout(const Tensor& file, Layout layout);

// One entry of a module's state. `tensor` points into the module and stays valid as long as the module lives.
struct StateEntry {
  std::string name;
  Tensor* tensor = nullptr;
  Layout layout = Layout::kPlain;
  bool trainable = false;  // a parameter; false for buffers
  bool frozen = false;     // a parameter that keeps its value, which is not trainable
};

class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  // Parameters and buffers of this module and everything below it, with full names, in order of registration.
  std::vector<StateEntry> state() const;
  std::vector<StateEntry> parameters() const;
  std::vector<Tensor> parameter_tensors() const;  // tensors of parameters(), in order, for an optimiser
  int64_t parameter_count() const;                // elements, of frozen ones too

  // Moves parameters and floating-point buffers; gradients are dropped. Optimisers are made afterwards.
  void to(Device device);
  void train(bool on = true);
  void eval() { train(false); }
  // Freezes the modules below whose full names, with a dot behind them, begin with `prefix`: their parameters need no
  // gradient and belong to no optimiser any more, and they stay in evaluation mode. Throws Error if there are none.
  void freeze(std::string_view prefix);
  bool training() const { return training_; }
  void clear_grads();

  // Names from the root to here, as in the keys of the state: "decode_head.conv_list.2.convA.conv". Empty for the root.
  const std::string& path() const { return path_; }

 protected:
  // The member is set to zeros; a parameter becomes a leaf of the tape.
  void add_parameter(std::string name, Tensor& member, const Shape& shape, Layout layout = Layout::kPlain);
  void add_buffer(std::string name, Tensor& member, const Shape& shape, DType dtype = DType::kFloat);
  // `name` may hold dots: the path below this module. The child must outlive this module or be a member of it.
  void add_child(std::string name, Module& child);

 private:
  struct Child {
    std::string name;
    Module* module;
  };
  void lengthen_path(const std::string& front);
  bool freeze_below(std::string_view prefix);
  void collect(const std::string& prefix, std::vector<StateEntry>& out) const;

  std::vector<StateEntry> own_;
  std::vector<Child> children_;
  std::string path_;
  bool training_ = true, frozen_ = false;
};

enum class Padding : uint8_t {
  kEqual,  // dilation * (kernel - 1) / 2 on all sides
  kSame,   // TensorFlow's "SAME": as little as gives ceil(size / stride), an odd row or column below or to the right
};
struct Pads {
  int before = 0, after = 0;
};
// pads_of() gives the padding of one axis of `size` rows or columns.
Pads pads_of(Padding padding, int64_t size, int kernel, int stride, int dilation);

struct ConvGeometry {
  int stride = 1, dilation = 1;
  Padding padding = Padding::kEqual;
  Layout layout = Layout::kConv;  // layout of the weight: dense or depthwise
};

class BatchNorm2d;

// A chain (forward_chain) runs its convolutions, dense or depthwise and without bias, through this interface.
class Convolution : public Module {
 public:
  virtual Tensor forward(const Tensor& x) const = 0;
  // A chain convolves below(x.y), which is made as it is read, or x.y where `below` is null; x.moments are those of
  // x.y, if known. The result may have its moments, if `above` wants them.
  virtual ConvolutionResult forward(const ConvolutionResult& x, BatchNorm2d* below, const BatchNorm2d& above) const = 0;
  // Output size for an input of `size` rows or columns, and multiply-adds per output pixel.
  virtual int64_t output_size(int64_t size) const = 0;
  virtual int64_t macs_per_pixel() const = 0;
  virtual ConvGeometry geometry() const = 0;

  Tensor weight;
};

struct Conv2dConfig {
  int64_t in = 0, out = 0;
  int kernel = 1, stride = 1, dilation = 1;
  bool bias = true;
  Activation activation = Activation::kNone;
  Padding padding = Padding::kEqual;
};

// y = act(x * weight + bias)
class Conv2d final : public Convolution {
 public:
  explicit Conv2d(const Conv2dConfig& config);
  Tensor forward(const Tensor& x) const override;
  ConvolutionResult forward(const ConvolutionResult& x, BatchNorm2d* below, const BatchNorm2d& above) const override;
  // `pad_top` takes the place of padding() above the first row: 0 where x is a window that starts one row early.
  Tensor forward(const Tensor& x, int pad_top) const;
  // The last layer of a head, of 1 x 1 to one channel: its result is fp32, with this activation (head_conv).
  Tensor forward_head(const Tensor& x, Activation last) const;
  int64_t output_size(int64_t size) const override;
  int64_t macs_per_pixel() const override;
  ConvGeometry geometry() const override;
  int padding() const { return config_.dilation * (config_.kernel - 1) / 2; }  // padding per side with Padding::kEqual
  const Conv2dConfig& config() const { return config_; }

  Tensor bias;

 private:
  Conv2dOptions options_for(const Tensor& x) const;

  Conv2dConfig config_;
};

// One filter of 3x3 or 5x5 per channel, no bias.
class DepthwiseConv2d final : public Convolution {
 public:
  DepthwiseConv2d(int64_t channels, int stride, int dilation, int kernel = 3, Padding padding = Padding::kEqual);
  Tensor forward(const Tensor& x) const override;
  ConvolutionResult forward(const ConvolutionResult& x, BatchNorm2d* below, const BatchNorm2d& above) const override;
  int64_t output_size(int64_t size) const override;
  int64_t macs_per_pixel() const override;
  ConvGeometry geometry() const override;

 private:
  DepthwiseConv2dOptions options_for(const Tensor& x) const;

  int64_t channels_;
  int stride_, dilation_, kernel_;
  Padding padding_;
};

// Transposed convolution whose kernel is its stride: every input pixel makes a block of stride x stride outputs.
class ConvTranspose2d final : public Module {
 public:
  ConvTranspose2d(int64_t in, int64_t out, int stride);
  Tensor forward(const Tensor& x) const;
  int64_t macs_per_pixel() const { return weight.size(2) * weight.size(3); }  // multiply-adds per output pixel

  Tensor weight, bias;

 private:
  int stride_;
};

// y = x * weight^T + bias over the last dimension.
class Linear final : public Module {
 public:
  Linear(int64_t in, int64_t out, bool with_bias = true);
  Tensor forward(const Tensor& x) const;
  int64_t macs_per_row() const { return weight.numel(); }

  Tensor weight, bias;
};

// Normalises over the last dimension.
class LayerNorm final : public Module {
 public:
  explicit LayerNorm(int64_t channels, float eps = 1e-6f);
  Tensor forward(const Tensor& x) const;

  Tensor weight, bias;

 private:
  float eps_;
};

class BatchNorm2d final : public Module {
 public:
  explicit BatchNorm2d(int64_t channels, Activation activation = Activation::kNone, float eps = kEps);
  // `moments` of x, if its producer took them (batch_norm).
  Tensor forward(const Tensor& x, const Tensor& moments = {});
  // The first part of forward, for what normalises x itself.
  BatchNormStatistics statistics(const Tensor& x, const Tensor& moments = {});

  // Measuring: until adopt_measured(), every forward also takes the statistics of its input. adopt_measured() then
  // makes them the running statistics and changes weight and bias so that the function in eval mode stays what it was:
  //   slope s = weight * rstd, weight' = s * sqrt(var' + eps), bias' = bias + (mean' - mean) * s
  void start_measuring();
  void adopt_measured();
  bool measuring() const { return measuring_; }

  // Tells whether the batch norm would use moments of its input.
  bool wants_moments() const { return training() && !measuring_; }

  Activation activation() const { return activation_; }

  static constexpr float kEps = 1e-5f;
  float eps() const { return eps_; }

  Tensor weight, bias, running_mean, running_var;
  Tensor num_batches_tracked;  // one int64 on the CPU

 private:
  void measure(const Tensor& x);
  BatchNormOptions options() const;

  Activation activation_;
  float eps_;
  bool measuring_ = false;
  int64_t measured_batches_ = 0;
  std::vector<double> mean_sum_, square_sum_;  // sums over batches, per channel: mean, and var + mean^2
};

// norm(conv(x)), a link of a chain of layers.
struct ConvNorm {
  const Convolution* conv = nullptr;
  BatchNorm2d* norm = nullptr;
};

// Runs the links one after another. A convolution that follows a batch norm normalises its input itself, so that the
// normalised map is not kept for the gradient (but while the batch norm measures); and the batch norm behind a
// convolution gets its statistics from there.
Tensor forward_chain(const Tensor& x, std::span<const ConvNorm> chain);

}  // namespace depthstill
