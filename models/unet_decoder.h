// The students' decoder (after DenseDepth, Alhashim & Wonka 2018): a 1x1 convolution on the deepest tap, then per
// shallower tap "resize to its size, concatenate, two 3x3 convolutions", then doublings followed by two 3x3
// convolutions up to the image's size, and the head. ReLU, biases, no normalisation; resizing is bilinear with aligned
// corners.
//
// Without normalisation an output row depends only on input rows near it. When the loss ignores the top of the map, the
// rows that cannot reach it need not be computed: first_rows() finds them and forward() runs on what is left.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/nn.h"
#include "models/encoder.h"

namespace depthstill {

struct DecoderConfig {
  std::vector<int64_t> taps;    // channels of the encoder's taps, shallow to deep
  std::vector<int64_t> widths;  // channels of the decoder at each tap
  int doublings = 0;            // number from the shallowest tap to the image, at most 2
  int64_t bins = 257;           // 1x1 convolution to one logit per bin; 0: 3x3 convolution to one channel
  bool published = true;        // as UnetConfig has it
  bool relative = false;        // instead of bins: 1x1 convolution to one channel, of a relative head
};

// Bins of the output layer that the published regression students hold and never run.
inline constexpr int64_t kReferenceUnusedBins = 256;

class UnetDecoder final : public Module {
 public:
  explicit UnetDecoder(const DecoderConfig& config);

  // taps, shallow to deep -> rows [first_needed_row, H) of the output (N, H, W, 1) before any activation; with bins or
  // a relative head, of the map that output_conv() is still to be applied to.
  Tensor forward(const std::vector<Tensor>& taps, int64_t first_needed_row = 0) const;

  // Gives per step the first row of its input map that the output rows from first_needed_row on depend on, then that
  // row itself.
  std::vector<int64_t> first_rows(const std::vector<MapSize>& taps, int64_t first_needed_row) const;
  int64_t macs(const std::vector<MapSize>& taps, int64_t first_needed_row = 0) const;
  MapSize output_size(const std::vector<MapSize>& taps) const { return sizes(taps).back(); }
  // The widths of a stored decoder, shallow to deep: channels_of says how many output channels the file's convolution
  // of that name has, -1 if there is none. Empty if it is no decoder.
  static std::vector<int64_t> stored_widths(const std::function<int64_t(const std::string& conv)>& channels_of);
  // One line per step, for tests and messages: "join", "conv_list.1.convA.conv", ...
  std::vector<std::string> step_names() const;

  // Dead parameters belong to the published code, whose forward pass never uses them: they are in its checkpoints and
  // counts, not in this module.
  struct DeadParameter {
    std::string name;  // name below the decoder
    Shape file_shape;
  };
  const std::vector<DeadParameter>& dead_parameters() const { return dead_; }
  const Conv2d& output_conv() const;  // the head, which is initialised differently

  enum class Kind : uint8_t { kConv, kJoin, kDouble };  // kJoin: resize to a tap's size and append the tap
  struct Step {
    Kind kind;
    std::string name;
    const Conv2d* conv = nullptr;  // kConv
    size_t tap = 0;                // kJoin
    std::string block = {};        // part of the checkpoint that the step belongs to; not for kConv
  };
  const std::vector<Step>& steps() const { return steps_; }

 private:
  void add_conv(const std::string& name, int64_t in, int64_t out, int kernel, Activation activation);
  void add_conv_pair(const std::string& name, int64_t in, int64_t out);
  void list_dead_parameters(const DecoderConfig& config);
  std::vector<MapSize> sizes(const std::vector<MapSize>& taps) const;  // each step's input, then the output

  bool pointwise_head_;  // of 1 x 1, which is left to the caller
  std::vector<Step> steps_;
  std::vector<std::unique_ptr<Conv2d>> convs_;
  std::vector<DeadParameter> dead_;
};

}  // namespace depthstill
