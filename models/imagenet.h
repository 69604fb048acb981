// ImageNet weights for the encoders, from files with the key names of torchvision's classifiers or of the OpenMMLab
// checkpoints (models/checkpoint_keys.h), with batch norms or with these folded into the convolutions.
//
// A folded file holds weight and bias per convolution. It is re-expanded to weight, and a batch norm with scale 1,
// shift = bias, mean 0 and variance 1 - eps, which computes the same in eval mode. In train mode batch statistics
// would replace those made-up ones and change the function, so call recalibrate_batch_norm() before fine-tuning.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "models/checkpoint_keys.h"
#include "models/encoder.h"

namespace depthstill {

// An InputConvention says what a network is fed: (pixel - mean) / std per channel, RGB, pixels 0..255.
struct InputConvention {
  std::array<double, 3> mean, std;
};
inline constexpr InputConvention kImagenetInput{{123.675, 116.28, 103.53}, {58.395, 57.12, 57.375}};
inline constexpr InputConvention kSymmetricInput{{127.5, 127.5, 127.5}, {127.5, 127.5, 127.5}};  // -1..1

struct ImagenetOptions {
  // The input that the file's network was trained on. Unset, it is kImagenetInput for a file with batch norms and
  // kSymmetricInput for a folded one, as in the published quantised models. Our network is fed kImagenetInput: the
  // affine difference goes into the first convolution. Only its zero padding changes meaning, from the file's zero to
  // the mean colour.
  std::optional<InputConvention> input;
};

struct ImagenetReport {
  bool folded = false;               // recalibrate_batch_norm() is advisable
  std::vector<std::string> ignored;  // keys of the file that the encoder has no use for, as the classifier
};

// Throws Error, naming the first key, if one of the encoder's tensors is missing or has another shape.
ImagenetReport load_imagenet(Encoder& encoder, const MappedWeights& file, const ImagenetOptions& options = {});
ImagenetReport load_imagenet(Encoder& encoder, const std::string& path, const ImagenetOptions& options = {});

// Sets every batch norm's running statistics to those of its input over `images` (normalised batches as in training)
// and its scale and shift such that the function in eval mode is what it was; train mode then stays close to it.
void recalibrate_batch_norm(Encoder& encoder, std::span<const Tensor> images);

}  // namespace depthstill
