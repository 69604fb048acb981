// The monocular networks of Depth Anything 3 with weights from an integer hash, against numbers that published code
// gave in double precision for the same weights: L by the authors', S and B by LightlyTrain's.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "engine/device.h"
#include "models/depth_anything.h"
#include "models/model_table.h"
#include "models/sky_rule.h"
#include "tests/models/hashed_network.h"

namespace depthstill {
namespace {

using test::fill_with_hash;
using test::hash_image;

std::string authors_name(std::string name) {
  for (const auto& [ours, theirs] : {std::pair("pretrained.", "backbone.pretrained."), {"depth_head.", "head."}}) {
    if (name.starts_with(ours)) return theirs + name.substr(std::string(ours).size());
  }
  return name;
}

void fill(DepthAnything& network) {
  std::map<std::string, std::string> published;
  for (const StateEntry& entry : network.state()) published[entry.name] = authors_name(entry.name);
  fill_with_hash(network, published);
}

std::unique_ptr<DepthAnything> hashed(const std::string& name) {
  auto network = std::make_unique<DepthAnything>(name, std::get<DepthAnythingConfig>(find_model(name).config),
                                                 ModelOptions{.head = default_head(name)});
  fill(*network);
  network->eval();
  return network;
}

struct Maps {
  Tensor raw, sky;  // both before their activations, (1, H, W, 1)
};
Maps maps_of(const DepthAnything& network, const Tensor& image, std::vector<Tensor> taps) {
  const int64_t height = image.size(1), width = image.size(2);
  for (Tensor& tap : taps) tap = reshape(tap, {image.size(0), height / 14, width / 14, tap.size(2)});
  Maps maps;
  maps.raw = network.head().forward(taps, height, width, Activation::kNone, &maps.sky);
  return maps;
}

// At [0, 0], [H / 2, W / 2], [-1, -1], and over the map.
struct Row {
  std::array<double, 3> places;
  double mean, deviation, minimum, maximum;
};

struct Golden {
  const char* name;
  int64_t parameters;
  size_t tensors;
  double gmac, wide;  // at 504 x 504 and 378 x 504, as the published order of layers computes
  std::array<double, 3> first_token, last_token;  // first three channels: tap 0 token 0, tap 3 last token
  Row raw, sky;
  int sky_pixels;
  Row filled;  // depth after fill_sky
};

constexpr int64_t kHeight = 70, kWidth = 98;

constexpr Golden kGolden[] = {
    {"da3mono_l",
     334'171'394,
     406,
     621.8,
     451.1,
     {-.118433, .971897, .285325},
     {-.723289, -1.072331, -.995752},
     {{-.291326, .086853, -.073446}, -.233710, .368551, -1.385781, .622762},
     {{.460476, -3.030830, -.943430}, -1.052446, .760066, -3.616115, .578408},
     40,
     {{1.654059, 1.090736, .929186}, .849522, .309244, .250128, 1.864069}},
    {"da3mono_s",
     24'720'130,
     238,
     56.0,
     39.1,
     {1.055582, -.598019, -.133651},
     {2.433349, 1.647153, .284255},
     {{.112806, .002789, -.166937}, -.046721, .478175, -1.631197, 1.259420},
     {{.281722, -1.031725, -.049216}, -.750250, .591638, -2.421757, .829419},
     3901,
     {{2.934612, 1.002793, 2.934612}, 2.187152, .932642, .302389, 3.310788}},
    {"da3metric_b",
     97'193'346,
     238,
     183.0,
     131.6,
     {1.470599, .799429, .059225},
     {1.454579, 2.613379, -1.290371},
     {{.024813, -.075290, -.309840}, -.167941, .530569, -1.598407, 1.508344},
     {{.381589, 1.123504, .015475}, .073686, .543122, -1.591964, 1.702659},
     6463,
     {{3.737718, 3.737718, 3.737718}, 3.592215, .610226, .544669, 4.187190}},
};

void expect_row(const Row& row, const std::vector<float>& map, double tolerance) {
  const auto near = [&](double found, double expected) {
    EXPECT_NEAR(found, expected, tolerance * std::max(1.0, std::abs(expected)));
  };
  near(map.front(), row.places[0]);
  near(map[kHeight / 2 * kWidth + kWidth / 2], row.places[1]);
  near(map.back(), row.places[2]);
  double sum = 0, squares = 0;
  for (const float value : map) {
    sum += value;
    squares += double{value} * value;
  }
  const auto n = static_cast<double>(map.size());
  near(sum / n, row.mean);
  near(std::sqrt(squares / n - sum / n * sum / n), row.deviation);
  near(*std::min_element(map.begin(), map.end()), row.minimum);
  near(*std::max_element(map.begin(), map.end()), row.maximum);
}

void expect_counts(const Golden& golden, const DepthAnything& network) {
  EXPECT_EQ(network.parameter_count(), golden.parameters);
  EXPECT_EQ(network.state().size(), golden.tensors);
  EXPECT_EQ(network.dead_parameter_names(), std::vector<std::string>{"pretrained.mask_token"});
  // Here a fusion's 1 x 1 convolution comes before the resize, at a quarter of the pixels.
  for (const auto& [found, published] :
       {std::pair(network.gmac(504, 504), golden.gmac), {network.gmac(378, 504), golden.wide}}) {
    EXPECT_LT(found, published);
    EXPECT_NEAR(found, published, 1e-2 * published);
  }
}

class DepthAnything3Golden : public testing::TestWithParam<Golden> {};

TEST_P(DepthAnything3Golden, Fp32) {
  constexpr double kTolerance = 5e-6;
  const Golden& golden = GetParam();
  const auto network = hashed(golden.name);
  expect_counts(golden, *network);
  const Tensor image = hash_image(kHeight, kWidth);
  const NoGrad no_grad;
  const std::vector<Tensor> taps = network->encoder().forward(image);
  const std::vector<float> first = to_vector<float>(taps.front()), last = to_vector<float>(taps.back());
  const auto dim = static_cast<size_t>(taps.back().size(2));
  for (size_t c = 0; c < 3; ++c) {
    EXPECT_NEAR(first[c], golden.first_token[c], kTolerance * std::max(1.0, std::abs(golden.first_token[c])));
    EXPECT_NEAR(last[last.size() - dim + c], golden.last_token[c],
                kTolerance * std::max(1.0, std::abs(golden.last_token[c])));
  }
  const Maps maps = maps_of(*network, image, taps);
  expect_row(golden.raw, to_vector<float>(maps.raw), kTolerance);
  expect_row(golden.sky, to_vector<float>(maps.sky), kTolerance);

  const Prediction prediction = network->forward(image);
  ASSERT_EQ(prediction.map.shape(), (Shape{1, kHeight, kWidth}));
  ASSERT_EQ(prediction.sky.shape(), (Shape{1, kHeight, kWidth}));
  std::vector<float> depth = to_vector<float>(prediction.map);
  const std::vector<float> sky = to_vector<float>(prediction.sky), logits = to_vector<float>(maps.sky);
  const bool relu = std::string(golden.name).ends_with("_l");
  for (size_t i = 0; i < sky.size(); ++i) {
    ASSERT_NEAR(sky[i], relu ? std::max(logits[i], 0.0f) : 1 / (1 + std::exp(-logits[i])), 1e-6);
  }
  const auto from = [&](float least) { return std::ranges::count_if(sky, [&](float s) { return s >= least; }); };
  EXPECT_LE(std::abs(from(kSkyThreshold) - golden.sky_pixels), 3);
  fill_sky(depth, sky);
  expect_row(golden.filled, depth, 1e-5);
  if (!relu) return;
  EXPECT_EQ(from(0.5f), 7);
  std::vector<float> label = to_vector<float>(prediction.map);
  to_sky_label(label, sky);
  expect_row({{0, .916812, 1.076211}, 1.347914, .541695, 0, 3.997947}, label, kTolerance);
  const std::vector<float> positions = to_vector<float>(network->encoder().position_embedding(5, 7));
  const double token1[] = {-.082568, -.148390, .009602}, last_position[] = {.003620, -.095437, .060540};
  for (size_t c = 0; c < 3; ++c) {
    EXPECT_NEAR(positions[dim + c], token1[c], 5e-6);
    EXPECT_NEAR(positions[35 * dim + c], last_position[c], 5e-6);
  }
}

INSTANTIATE_TEST_SUITE_P(Networks, DepthAnything3Golden, testing::ValuesIn(kGolden),
                         [](const auto& test) { return test.param.name; });

// The exponential is of fp32: e bf16 steps of the map below would be e / 256 of the depth.
TEST(DepthAnything3, Bf16EndsInFp32) {
  const auto network = hashed("da3mono_s");
  const NoGrad no_grad;
  const Prediction found = network->forward(cast(hash_image(kHeight, kWidth), DType::kBf16));
  ASSERT_EQ(found.map.dtype(), DType::kFloat);
  ASSERT_EQ(found.sky.dtype(), DType::kFloat);
  const std::vector<float> depth = to_vector<float>(found.map);
  const auto rounded = std::ranges::count_if(depth, [](float v) { return static_cast<float>(bf16(v)) == v; });
  EXPECT_LT(rounded, static_cast<int64_t>(depth.size() / 20));
  double mean = 0;
  for (const float v : depth) mean += std::log(v) / static_cast<double>(depth.size());
  EXPECT_NEAR(mean, -.046721, 2e-2);
}

double norm_of(const Tensor& x) {
  double squares = 0;
  for (const float v : to_vector<float>(x)) squares += double{v} * v;
  return std::sqrt(squares);
}

TEST(DepthAnything3, GradientsOfBothBranches) {
  const auto network = hashed("da3metric_s");
  const Tensor image = hash_image(kHeight, kWidth);
  const Maps maps = maps_of(*network, image, network->encoder().forward(image));
  const Tensor loss = scale(add(mean(square(maps.raw)), mean(square(maps.sky))), 0.5f);
  EXPECT_NEAR(item(loss), .571872358, 1e-6);
  backward(loss);
  const std::map<std::string, double> norms = {{"pretrained.cls_token", .1477891},
                                               {"pretrained.pos_embed", .2645177},
                                               {"pretrained.blocks.0.attn.qkv.weight", 1.882232},
                                               {"pretrained.blocks.11.ls2.gamma", .08618668},
                                               {"depth_head.projects.0.weight", .3002324},
                                               {"depth_head.scratch.output_conv1.weight", 11.84775},
                                               {"depth_head.scratch.output_conv2.0.weight", 1.978393},
                                               {"depth_head.scratch.sky_output_conv2.0.weight", 9.323256}};
  size_t found = 0;
  for (const StateEntry& entry : network->parameters()) {
    ASSERT_TRUE(entry.tensor->grad().defined()) << entry.name;
    if (const auto norm = norms.find(entry.name); norm != norms.end()) {
      EXPECT_NEAR(norm_of(entry.tensor->grad()), norm->second, 2e-5 * norm->second) << entry.name;
      ++found;
    }
    if (entry.name == "depth_head.scratch.sky_output_conv2.2.bias") {
      EXPECT_NEAR(to_vector<float>(entry.tensor->grad())[0], -.7502503, 2e-5);
    }
  }
  EXPECT_EQ(found, norms.size());
}

TEST(DepthAnything3, TheHeadTellsMonoFromMetric) {
  EXPECT_EQ(name_of(kind_of(default_head("da3mono_l"))), "depth up to scale and shift");
  EXPECT_EQ(name_of(kind_of(default_head("da3metric_l"))), "depth up to scale");
  EXPECT_TRUE(same_weights("da3mono_l", "da3metric_l"));
  EXPECT_FALSE(same_weights("da3mono_l", "da3mono_b"));
  EXPECT_FALSE(same_weights("da3mono_s", "dpt_s"));
  for (const char* name : {"dpt_s", "midas_small", "mobilenet_unet_small", "da3metric_s"}) {
    EXPECT_THROW(make_model(name, {.head = Head::kRelativeDepth}), Error) << name;
  }
  EXPECT_THROW(make_model("da3mono_s", {.head = Head::kRelative}), Error);
}

// The network of the smallest golden at one patch by two: every kernel is the CUDA one (in the emulator; the products
// are stand-ins there).
TEST(DepthAnything3, IsTheSameOnBothDevices) {
  if (!built_with_cuda()) enable_emulated_cuda();
  if (!available(Device::kCuda)) GTEST_SKIP() << "skipped: " << cuda_unavailable_reason();
  const auto network = hashed("da3mono_s");
  const Tensor image = hash_image(14, 28);
  const NoGrad no_grad;
  const Prediction expected = network->forward(image);
  network->to(Device::kCuda);
  const Prediction found = network->forward(to_device(image, Device::kCuda));
  for (const auto& [device, host] : {std::pair(found.map, expected.map), {found.sky, expected.sky}}) {
    const std::vector<float> a = to_vector<float>(to_device(device, Device::kCpu)), b = to_vector<float>(host);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 2e-5 * std::max(1.0f, b[i])) << i;
  }
}

}  // namespace
}  // namespace depthstill
