// ImageNet weights: key schemes, folded files, and real images through the real network.
#include "models/imagenet.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "engine/checkpoint.h"
#include "engine/io/image.h"
#include "engine/io/safetensors.h"
#include "models/mobilenet_v2.h"
#include "models/resnet.h"
#include "tests/io/test_files.h"
#include "tests/models/oracle.h"

namespace depthstill {
namespace {

using testing_files::TemporaryFolder;

const char* kFoldedFile = "/mobilenet_v2_1.0_imagenet_bnfolded_full_f32.safetensors";

// Writes the encoder under other names; with `fold`, as convolutions with bias.
void write_as(const Encoder& encoder, const std::string& path, bool torchvision, const std::string& prefix, bool fold) {
  std::vector<NamedTensor> out;
  for (const ConvBn& unit : encoder.units()) {
    const std::string conv = prefix + (torchvision ? unit.names.torchvision_conv : unit.names.conv);
    const std::string bn = prefix + (torchvision ? unit.names.torchvision_bn : unit.names.bn);
    std::vector<float> weight = to_vector<float>(unit.conv->weight);
    const Layout layout = unit.conv->state().front().layout;
    std::vector<float> g = to_vector<float>(unit.bn->weight), b = to_vector<float>(unit.bn->bias);
    const std::vector<float> mean = to_vector<float>(unit.bn->running_mean);
    const std::vector<float> var = to_vector<float>(unit.bn->running_var);
    if (!fold) {
      out.push_back({conv + ".weight", unit.conv->weight, layout});
      for (const StateEntry& e : unit.bn->state()) out.push_back({bn + "." + e.name, *e.tensor});
      continue;
    }
    for (size_t c = 0; c < g.size(); ++c) {
      const float slope = g[c] / std::sqrt(var[c] + BatchNorm2d::kEps);
      b[c] -= mean[c] * slope;
      const size_t per_output = weight.size() / g.size();
      for (size_t i = 0; i < per_output; ++i)
        weight[layout == Layout::kDepthwise ? i * g.size() + c : c * per_output + i] *= slope;
    }
    out.push_back({conv + ".weight", tensor<float>(unit.conv->weight.shape(), weight), layout});
    out.push_back({conv + ".bias", tensor<float>(unit.bn->bias.shape(), b)});
  }
  save_state(Conv2d({1, 1}), path, {}, out);  // two tensors are of a stray layer, which loading reports
}

std::vector<float> deepest_tap(const Encoder& encoder, const Tensor& image) {
  const NoGrad no_grad;
  return to_vector<float>(encoder.forward(image).back());
}

TEST(Imagenet, ReadsBothKeySchemesWithAndWithoutBatchNorms) {
  MobileNetV2 source;
  test::set_hash_weights(source);
  source.eval();
  const Tensor image = test::hash_tensor("image", {1, 32, 40, 3}, 0.0, 2.0);
  const std::vector<float> expected = deepest_tap(source, image);
  const TemporaryFolder folder;
  struct Case {
    bool torchvision;
    const char* prefix;
    bool fold;
  };
  for (const Case& c : {Case{true, "", false}, Case{false, "backbone.", false}, Case{false, "", false},
                        Case{true, "", true}, Case{false, "backbone.", true}}) {
    SCOPED_TRACE(testing::Message() << c.torchvision << " \"" << c.prefix << "\" " << c.fold);
    const std::string path = folder / "weights.safetensors";
    write_as(source, path, c.torchvision, c.prefix, c.fold);
    MobileNetV2 loaded;
    const ImagenetReport report = load_imagenet(loaded, path, {.input = kImagenetInput});
    EXPECT_EQ(report.folded, c.fold);
    EXPECT_EQ(report.ignored, (std::vector<std::string>{"weight", "bias"}));
    loaded.eval();
    EXPECT_LE(test::relative_distance(deepest_tap(loaded, image), expected), 1e-5);
  }
}

TEST(Imagenet, ReadsResNet) {
  ResNet source(18), loaded(18);
  test::set_hash_weights(source);
  const TemporaryFolder folder;
  const std::string path = folder / "resnet.safetensors";
  write_as(source, path, true, "", false);
  load_imagenet(loaded, path);
  source.eval();
  loaded.eval();
  const Tensor image = test::hash_tensor("image", {1, 64, 32, 3}, 0.0, 2.0);
  EXPECT_EQ(deepest_tap(loaded, image), deepest_tap(source, image));
  ResNet other(50);
  testing_files::expect_clear(testing_files::error_of([&] { load_imagenet(other, path); }), "layer1.0.conv1.weight");
  MobileNetV2 mobile;
  testing_files::expect_clear(testing_files::error_of([&] { load_imagenet(mobile, path); }), "features.0.0.weight");
}

TEST(Imagenet, InputConventionMovesIntoTheFirstConvolution) {
  MobileNetV2 source, converted;
  test::set_hash_weights(source);
  const TemporaryFolder folder;
  const std::string path = folder / "weights.safetensors";
  write_as(source, path, true, "", true);
  load_imagenet(converted, path);  // folded: trained on pixels / 127.5 - 1
  source.eval();
  converted.eval();
  // A stem output away from the border reads no padding, so there both conventions must agree.
  const std::vector<float> pixels = test::hash_values("pixels", 9 * 9 * 3, 127.5, 127.5);
  std::vector<float> symmetric(pixels.size()), normalised(pixels.size());
  for (size_t i = 0; i < pixels.size(); ++i) {
    symmetric[i] = pixels[i] / 127.5f - 1.0f;
    normalised[i] = static_cast<float>((pixels[i] - kImagenetInput.mean[i % 3]) / kImagenetInput.std[i % 3]);
  }
  const auto stem_inside = [](const Encoder& encoder, const std::vector<float>& image) {
    const Tensor y = encoder.units().front().forward(tensor<float>({1, 9, 9, 3}, image));  // (1, 5, 5, 32)
    const std::vector<float> all = to_vector<float>(y);
    return std::vector<float>(all.begin() + (1 * 5 + 1) * 32, all.begin() + (1 * 5 + 4) * 32);
  };
  EXPECT_LE(test::relative_distance(stem_inside(converted, normalised), stem_inside(source, symmetric)), 1e-5);
}

TEST(Imagenet, RecalibrationKeepsEvalAndBringsTrainModeClose) {
  MobileNetV2 source, encoder;
  test::set_hash_weights(source);
  const TemporaryFolder folder;
  const std::string path = folder / "weights.safetensors";
  write_as(source, path, true, "", true);
  load_imagenet(encoder, path, {.input = kImagenetInput});
  const Tensor image = test::hash_tensor("image", {2, 64, 64, 3}, 0.0, 2.0);
  encoder.eval();
  const std::vector<float> expected = deepest_tap(encoder, image);
  encoder.train();
  const double before = test::relative_distance(deepest_tap(encoder, image), expected);

  load_imagenet(encoder, path, {.input = kImagenetInput});
  recalibrate_batch_norm(encoder, {{image}});
  EXPECT_TRUE(encoder.training());
  encoder.eval();
  EXPECT_LE(test::relative_distance(deepest_tap(encoder, image), expected), 1e-4);
  encoder.train();
  const double after = test::relative_distance(deepest_tap(encoder, image), expected);
  EXPECT_LE(after, 1e-3);
  EXPECT_GE(before, 0.5);
}

// ---- real images through the published weights --------------------------------------------------------------------
struct Picture {
  int width = 0, height = 0;
  std::vector<float> rgb;
};

// 24-bit uncompressed BMP, rows from the bottom up.
Picture read_bmp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::vector<char> file((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  int32_t offset = 0, width = 0, height = 0;
  std::memcpy(&offset, &file.at(10), 4);
  std::memcpy(&width, &file.at(18), 4);
  std::memcpy(&height, &file.at(22), 4);
  Picture picture{width, height, {}};
  const int stride = (width * 3 + 3) / 4 * 4;
  for (int y = height - 1; y >= 0; --y)
    for (int x = 0; x < width; ++x)
      for (int c = 2; c >= 0; --c)
        picture.rgb.push_back(static_cast<uint8_t>(file.at(static_cast<size_t>(offset + y * stride + 3 * x + c))));
  return picture;
}

Picture read_picture(const std::string& path) {
  if (path.ends_with(".bmp")) return read_bmp(path);
  const Image8 image = read_image(path);
  return {image.width, image.height, std::vector<float>(image.rgb.begin(), image.rgb.end())};
}

// Resizes bilinearly with a triangle as wide as the reduction, one axis at a time.
std::vector<float> resize_axis(const std::vector<float>& x, int outer, int in, int inner, int out) {
  std::vector<float> y(static_cast<size_t>(outer) * out * inner, 0.0f);
  const double scale = static_cast<double>(in) / out, support = std::max(scale, 1.0);
  for (int o = 0; o < out; ++o) {
    const double centre = (o + 0.5) * scale;
    double total = 0.0;
    std::vector<std::pair<int, double>> taps;
    for (int i = std::max(0, static_cast<int>(centre - support)); i < std::min<double>(in, centre + support + 1); ++i) {
      const double w = std::max(0.0, 1.0 - std::abs((i + 0.5 - centre) / support));
      taps.emplace_back(i, w);
      total += w;
    }
    for (int a = 0; a < outer; ++a)
      for (const auto& [i, w] : taps)
        for (int b = 0; b < inner; ++b)
          y[(static_cast<size_t>(a) * out + o) * inner + b] +=
              static_cast<float>(w / total) * x[(static_cast<size_t>(a) * in + i) * inner + b];
  }
  return y;
}

Tensor network_input(const Picture& picture) {
  std::vector<float> x = resize_axis(picture.rgb, picture.height, picture.width, 3, 224);
  x = resize_axis(x, 1, picture.height, 224 * 3, 224);
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>((x[i] - kImagenetInput.mean[i % 3]) / kImagenetInput.std[i % 3]);
  return tensor<float>({1, 224, 224, 3}, x);
}

// The classifier's last layers: 1x1 to 1280 channels and ReLU6, mean over the map, linear to 1001 classes, softmax.
std::vector<double> classify(const Encoder& encoder, const SafetensorsFile& file, const Tensor& image) {
  const NoGrad no_grad;
  const Tensor features =
      conv2d(encoder.forward(image).back(), load_tensor(file, "features.18.0.weight", {1280, 1, 1, 320}, Layout::kConv),
             load_tensor(file, "features.18.0.bias", {1280}), {.activation = Activation::kRelu6});
  const std::vector<float> map = to_vector<float>(features);
  std::vector<double> mean(1280, 0.0);
  for (size_t i = 0; i < map.size(); ++i) mean[i % 1280] += map[i] / static_cast<double>(map.size() / 1280);
  const std::vector<float> weight = file.read_floats("classifier.1.weight"),
                           bias = file.read_floats("classifier.1.bias");
  std::vector<double> p(bias.begin(), bias.end());
  for (size_t k = 0; k < p.size(); ++k)
    for (size_t c = 0; c < mean.size(); ++c) p[k] += weight[k * mean.size() + c] * mean[c];
  const double top = *std::max_element(p.begin(), p.end());
  double total = 0.0;
  for (double& v : p) total += v = std::exp(v - top);
  for (double& v : p) v /= total;
  return p;
}

TEST(Imagenet, ClassifiesRealImages) {
  const auto folder = testing_files::find_data_set("mobilenetv2_imagenet");
  if (!folder) GTEST_SKIP() << "skipped: no mobilenetv2_imagenet";
  MobileNetV2 encoder(mobilenet_v2_classifier());
  const ImagenetReport report = load_imagenet(encoder, *folder + kFoldedFile);
  EXPECT_TRUE(report.folded);
  EXPECT_EQ(report.ignored.size(), 4u);  // features.18.0 and classifier.1
  const SafetensorsFile file(*folder + kFoldedFile);

  struct Case {
    const char* picture;
    size_t label;
    double probability;  // value with symmetric padding
  };
  const Case cases[] = {{"/cat.bmp", 286, 0.736}, {"/bird.bmp", 20, 0.972}, {"/parrot.jpg", 89, 0.998}};
  for (const bool recalibrated : {false, true}) {
    if (recalibrated) {
      const Tensor images[] = {network_input(read_picture(*folder + "/cat.bmp")),
                               network_input(read_picture(*folder + "/parrot.jpg"))};
      recalibrate_batch_norm(encoder, images);
    }
    encoder.eval();
    for (const Case& c : cases) {
      const std::vector<double> p = classify(encoder, file, network_input(read_picture(*folder + c.picture)));
      const size_t best = static_cast<size_t>(std::max_element(p.begin(), p.end()) - p.begin());
      EXPECT_EQ(best, c.label) << c.picture;
      EXPECT_NEAR(p[c.label], c.probability, 0.04) << c.picture;
    }
  }
}

}  // namespace
}  // namespace depthstill
