// The depth students of TIE-KD (Choi et al. 2023): an ImageNet encoder, the U-Net decoder, and a head that gives either
// a depth probability map (one logit per bin and pixel) or depth itself.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/encoder.h"
#include "models/unet_decoder.h"

namespace depthstill {

struct StudentOptions {
  Head head = Head::kDpm;
  int64_t bins = 257;   // kDpm: uniform bins over [d_min, d_max]
  float d_min = 1e-3f;  // metres
  float d_max = 80.0f;  // metres; kRegression: depth = d_max * sigmoid
};

class Student final : public Module {
 public:
  Student(std::string name, std::unique_ptr<Encoder> encoder, const DecoderConfig& decoder,
          const StudentOptions& options);

  // Normalised RGB (N, H, W, 3), fp32 or bf16; activations are of that type. Returns rows [first_needed_row, H):
  //   kDpm         logits (N, rows, W, bins) of the image's type; depth is the mean of the bins' centres under softmax
  //   kRegression  depth (N, rows, W) in metres, fp32
  // A loss over rows [r, H) and its gradients are the same for any first_needed_row <= r.
  Tensor forward(const Tensor& image, int64_t first_needed_row = 0) const;

  const std::string& name() const { return name_; }
  const StudentOptions& options() const { return options_; }
  Encoder& encoder() { return *encoder_; }
  const Encoder& encoder() const { return *encoder_; }
  const UnetDecoder& decoder() const { return decoder_; }

  // Image heights and widths must be multiples of this for the output to have the image's size.
  int64_t size_multiple() const { return size_multiple_; }
  // Parameters as the published code counts them, with the layers that it builds and never runs; parameter_count() is
  // what is executed and trained.
  int64_t reference_parameter_count() const;
  // Names of those layers' parameters, to be passed over in published checkpoints.
  std::vector<std::string> dead_parameter_names() const;
  // Multiply-adds per image, in units of 1e9.
  double gmac(int64_t height, int64_t width) const;

 private:
  std::string name_;
  StudentOptions options_;
  std::unique_ptr<Encoder> encoder_;
  UnetDecoder decoder_;
  int64_t size_multiple_ = 1;
};

std::vector<std::string> student_names();  // "mobilenet_unet", "resnet18_unet", "resnet50_unet"

// Parameters are zero (batch norm: one) until initialize() or a checkpoint sets them.
std::unique_ptr<Student> make_student(std::string_view name, const StudentOptions& options);

// Random weights for a new student (biases and batch norms keep their zeros and ones), as the published code draws
// them: Kaiming normal over fan-out and zero bias, the output convolution uniform in +-1/sqrt(fan-in). Each parameter
// has its own random stream, so none depends on the others.
void initialize(Student& student, uint64_t seed);

}  // namespace depthstill
