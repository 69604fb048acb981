#include "models/student.h"

#include <utility>

#include "engine/init.h"
#include "models/mobilenet_v2.h"
#include "models/resnet.h"

namespace depthstill {
namespace {

struct Architecture {
  const char* name;
  std::unique_ptr<Encoder> (*make_encoder)();
  std::vector<int64_t> widths;  // of the decoder, shallow to deep
  int doublings;
};

const std::vector<Architecture>& architectures() {
  static const std::vector<Architecture> table = {
      {"mobilenet_unet", [] { return std::unique_ptr<Encoder>(new MobileNetV2); }, {128, 256, 512, 2048}, 2},
      {"resnet18_unet", [] { return std::unique_ptr<Encoder>(new ResNet(18)); }, {128, 128, 256, 256, 512}, 1},
      {"resnet50_unet", [] { return std::unique_ptr<Encoder>(new ResNet(50)); }, {128, 256, 512, 1024, 2048}, 1},
  };
  return table;
}

}  // namespace

Student::Student(std::string name, std::unique_ptr<Encoder> encoder, const DecoderConfig& decoder,
                 const StudentOptions& options)
    : name_(std::move(name)),
      options_(options),
      encoder_(std::move(encoder)),
      decoder_(decoder),
      size_multiple_(int64_t{1} << decoder.doublings) {
  add_child("backbone", *encoder_);
  add_child("decode_head", decoder_);
}

Tensor Student::forward(const Tensor& image, int64_t first_needed_row) const {
  const Shape& shape = image.shape();
  check(shape.rank() == 4 && shape[3] == 3, name_, ": expected an image (N, H, W, 3), got ", shape);
  check(shape[1] > 0 && shape[2] > 0 && shape[1] % size_multiple_ == 0 && shape[2] % size_multiple_ == 0, name_,
        ": expected height and width to be multiples of ", size_multiple_, ", got ", shape[1], " x ", shape[2]);
  Tensor y = decoder_.forward(encoder_->forward(image), first_needed_row);
  if (options_.head == Head::kDpm) return y;
  // In fp32: sigmoid in bf16 would round depth to steps of a third of a metre.
  if (y.dtype() != DType::kFloat) y = cast(y, DType::kFloat);
  y = scale(activation(y, Activation::kSigmoid), options_.d_max);
  return reshape(y, {y.size(0), y.size(1), y.size(2)});
}

int64_t Student::reference_parameter_count() const {
  int64_t count = parameter_count();
  for (const DeadParameter& dead : decoder_.dead_parameters()) count += dead.file_shape.numel();
  return count;
}

std::vector<std::string> Student::dead_parameter_names() const {
  std::vector<std::string> names;
  for (const DeadParameter& dead : decoder_.dead_parameters()) names.push_back("decode_head." + dead.name);
  return names;
}

double Student::gmac(int64_t height, int64_t width) const {
  const EncoderTrace trace = encoder_->trace({height, width});
  return static_cast<double>(trace.macs + decoder_.macs(trace.taps)) * 1e-9;
}

std::vector<std::string> student_names() {
  std::vector<std::string> names;
  for (const Architecture& architecture : architectures()) names.emplace_back(architecture.name);
  return names;
}

std::unique_ptr<Student> make_student(std::string_view name, const StudentOptions& options) {
  check(options.d_min > 0.0f && options.d_max > options.d_min && options.bins >= 2,
        "student: expected 0 < d_min < d_max and at least 2 bins, got [", options.d_min, ", ", options.d_max, "] and ",
        options.bins);
  std::string known;
  for (const Architecture& architecture : architectures()) {
    known += (known.empty() ? "" : ", ") + std::string(architecture.name);
    if (name != architecture.name) continue;
    std::unique_ptr<Encoder> encoder = architecture.make_encoder();
    const DecoderConfig decoder{encoder->tap_channels(), architecture.widths, architecture.doublings, options.head,
                                options.bins};
    return std::make_unique<Student>(std::string(name), std::move(encoder), decoder, options);
  }
  fail("model: expected one of ", known, "; got \"", name, '"');
}

void initialize(Student& student, uint64_t seed) {
  const Conv2d& output = student.decoder().output_conv();
  const int64_t fan_in = output.macs_per_pixel() / output.config().out;
  for (const StateEntry& entry : student.parameters()) {
    const Tensor& x = *entry.tensor;
    if (x.raw() == output.weight.raw() || x.raw() == output.bias.raw())
      uniform_fan_in(x, fan_in, seed, entry.name);
    else if (entry.layout != Layout::kPlain)
      kaiming_normal_fan_out(x, entry.layout, seed, entry.name);
  }
}

}  // namespace depthstill
