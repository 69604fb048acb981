#include "models/imagenet.h"

#include <set>

#include "engine/checkpoint.h"
#include "models/checkpoint_keys.h"

namespace depthstill {
namespace {

const std::string kEncoder = "backbone.";

struct Source {
  const WeightsFile& file;
  std::set<std::string> used;

  Tensor read(const std::string& name, const Tensor& like, Layout layout = Layout::kPlain) {
    used.insert(name);
    return load_tensor(file, name, like.shape(), layout);
  }
};

Layout layout_of(const Convolution& conv) { return conv.state().front().layout; }

void fill(const Tensor& x, float value) {
  const std::vector<float> values(static_cast<size_t>(x.numel()), value);
  copy_(x, tensor<float>(x.shape(), values));
}

void load_unit(Source& source, const ConvBn& unit, bool folded) {
  const std::string conv = kEncoder + unit.names.conv, norm = kEncoder + unit.names.bn;
  copy_(unit.conv->weight, source.read(conv + ".weight", unit.conv->weight, layout_of(*unit.conv)));
  const BatchNorm2d& bn = *unit.bn;
  if (folded) {
    fill(bn.weight, 1.0f);
    fill(bn.running_mean, 0.0f);
    fill(bn.running_var, 1.0f - bn.eps());
    copy_(bn.bias, source.read(conv + ".bias", bn.bias));
    return;
  }
  copy_(bn.weight, source.read(norm + ".weight", bn.weight));
  copy_(bn.bias, source.read(norm + ".bias", bn.bias));
  copy_(bn.running_mean, source.read(norm + ".running_mean", bn.running_mean));
  copy_(bn.running_var, source.read(norm + ".running_var", bn.running_var));
  source.used.insert(norm + ".num_batches_tracked");
}

// The file's input is x = gain * ours + shift per channel, so conv(x, W) = conv(ours, gain W) + sum of W shift. The
// constant moves into the batch norm's mean.
void convert_stem_input(const ConvBn& stem, const InputConvention& from, const InputConvention& to) {
  std::vector<float> weight = to_vector<float>(stem.conv->weight), mean = to_vector<float>(stem.bn->running_mean);
  const size_t channels = from.mean.size(), per_output = weight.size() / mean.size();
  for (size_t o = 0; o < mean.size(); ++o) {
    double constant = 0.0;
    for (size_t i = 0; i < per_output; ++i) {
      float& w = weight[o * per_output + i];
      const size_t c = i % channels;
      constant += w * (to.mean[c] - from.mean[c]) / from.std[c];
      w = static_cast<float>(w * to.std[c] / from.std[c]);
    }
    mean[o] = static_cast<float>(mean[o] - constant);
  }
  copy_(stem.conv->weight, tensor<float>(stem.conv->weight.shape(), weight));
  copy_(stem.bn->running_mean, tensor<float>(stem.bn->running_mean.shape(), mean));
}

}  // namespace

ImagenetReport load_imagenet(Encoder& encoder, const MappedWeights& file, const ImagenetOptions& options) {
  const UnitNames& first = encoder.units().front().names;
  check(file.find(kEncoder + first.conv + ".weight") != nullptr, file.path(), ": expected a tensor named ",
        first.torchvision_conv, ".weight, ", kEncoder, first.conv, ".weight or ", first.conv,
        ".weight, found none: weights of another encoder (", file.map().architecture, ")");
  ImagenetReport report;
  report.folded = file.map().folded;

  Source source{file, {}};
  for (const ConvBn& unit : encoder.units()) load_unit(source, unit, report.folded);
  const InputConvention from = options.input.value_or(report.folded ? kSymmetricInput : kImagenetInput);
  convert_stem_input(encoder.units().front(), from, kImagenetInput);
  for (const StoredTensor& stored : file.tensors())
    if (!source.used.contains(stored.name)) report.ignored.push_back(stored.name);
  return report;
}

ImagenetReport load_imagenet(Encoder& encoder, const std::string& path, const ImagenetOptions& options) {
  return load_imagenet(encoder, *open_mapped_weights(path), options);
}

void recalibrate_batch_norm(Encoder& encoder, std::span<const Tensor> images) {
  check(!images.empty(), "recalibrate_batch_norm: expected at least one batch of images");
  const NoGrad no_grad;
  const bool training = encoder.training();
  encoder.eval();
  for (const ConvBn& unit : encoder.units()) unit.bn->start_measuring();
  for (const Tensor& batch : images) encoder.forward(batch);
  for (const ConvBn& unit : encoder.units()) unit.bn->adopt_measured();
  encoder.train(training);
}

}  // namespace depthstill
