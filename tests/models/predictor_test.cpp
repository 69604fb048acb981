#include "models/predictor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "engine/data/pixels.h"
#include "engine/io/safetensors.h"
#include "engine/io/text_file.h"
#include "models/fitted_image.h"
#include "models/model_file.h"
#include "models/model_table.h"
#include "tests/io/test_files.h"

namespace depthstill {
namespace {

using testing_files::error_of;
using testing_files::TemporaryFolder;

std::unique_ptr<DepthModel> small_unet(Head head) {
  auto model = make_model("mobilenet_unet", {.head = head, .bins = 8, .decoder_widths = {16, 16, 16, 32}});
  model->initialize(1);
  model->eval();
  return model;
}

Image8 picture(int width, int height) {
  Image8 image{width, height, {}};
  for (int i = 0; i < 3 * width * height; ++i) image.rgb.push_back(static_cast<uint8_t>(i * 37 % 251));
  return image;
}

void set_first(const DepthModel& model, const std::string& name, float value) {
  for (const StateEntry& entry : model.state()) {
    if (entry.name == name) entry.tensor->data<float>()[0] = value;
  }
}

// A network without a size of its own, as it is and as one trained on resized images, whose size `side` replaces.
TEST(Predictor, SideIsTheShorterSideOfWhatTheNetworkSees) {
  const auto model = small_unet(Head::kDpm);
  const Image8 image = picture(96, 64);
  const DepthMap whole = Predictor(*model, {.flip = false})(image);
  const DepthMap small = Predictor(*model, {.flip = false})(resize(image, {48, 32}));
  const DepthMap expected = resize_bilinear(small, image.size());
  for (const std::optional<ImageSize> trained : {std::optional<ImageSize>(), std::optional<ImageSize>({72, 64})}) {
    model->set_trained_use(TrainedUse{.input_size = trained});
    const DepthMap depth = Predictor(*model, {.flip = false, .side = 32})(image);
    EXPECT_EQ(depth.size(), image.size());
    EXPECT_EQ(depth.values, expected.values);
    EXPECT_NE(depth.values, whole.values);
  }
}

// Training on squares leaves such a side in the weights, for networks with a size of their own, too.
TEST(Predictor, ASideIsKeptWithTheWeights) {
  const TemporaryFolder folder;
  const Image8 image = picture(96, 64);
  for (const char* name : {"mobilenet_unet_small", "midas_small"}) {
    auto model = make_model(name, {.head = Head::kRelative});
    model->initialize(2);
    model->eval();
    const DepthMap expected = Predictor(*model, {.flip = false, .side = 32})(image);
    TrainedUse use;
    use.side = 32;
    use.flip = false;
    model->set_trained_use(use);
    EXPECT_EQ(Predictor(*model, {.flip = false})(image).values, expected.values) << name;
    save_model(folder / "w.safetensors", *model);
    const auto loaded = load_model(folder / "w.safetensors");
    EXPECT_EQ(loaded->trained_use()->side, 32);
    EXPECT_EQ(input_text(*loaded->trained_use()), "brought to sides of 32");
    loaded->eval();
    EXPECT_EQ(Predictor(*loaded, {.flip = false})(image).values, expected.values) << name;
  }
}

TEST(Predictor, RefusesASideThatNoNetworkIsMeantFor) {
  auto model = make_model("dpt_s", {.head = Head::kRelative});
  model->eval();
  EXPECT_EQ(error_of([&] { Predictor(*model, {.flip = false})(picture(300, 1), "a.png"); }),
            "a.png: expected sides of at most 8192 pixels for the network, found 155400x518 (width x height) for an "
            "image of 300x1; --side brings it to another size");
}

// Weights of infinity would be refused when they are read; finite ones may still overflow.
TEST(Predictor, AMapThatIsNotFiniteIsNoResult) {
  const Head heads[] = {Head::kRegression, Head::kDpm};
  const char* const biases[] = {"decode_head.conv_depth.bias", "decode_head.conv_out.0.bias"};
  for (const size_t i : {0u, 1u}) {
    const auto model = small_unet(heads[i]);
    const Predictor predictor(*model, {.flip = false});
    EXPECT_EQ(predictor(picture(45, 33), "a.png").size(), (ImageSize{45, 33}));
    set_first(*model, biases[i], std::numeric_limits<float>::quiet_NaN());
    EXPECT_EQ(error_of([&] { predictor(picture(45, 33), "a.png"); }),
              "a.png: expected a finite map of mobilenet_unet, found NaN at row 0, column 0 of its 45x33 pixels");
  }
}

TEST(Predictor, WeightsThatAreNotFiniteAreNamed) {
  const TemporaryFolder folder;
  const std::string path = folder / "w.safetensors", name = "backbone.conv1.bn.running_var";
  const auto model = small_unet(Head::kDpm);
  const float marker = 12345.678f, infinity = std::numeric_limits<float>::infinity();
  set_first(*model, name, marker);
  save_model(path, *model);
  std::vector<uint8_t> file = read_bytes(path);  // nothing of ours writes such a file
  const auto* from = reinterpret_cast<const uint8_t*>(&marker);
  const auto at = std::search(file.begin(), file.end(), from, from + sizeof(marker));
  std::copy_n(reinterpret_cast<const uint8_t*>(&infinity), sizeof(infinity), at);
  testing_files::write_quickly(path, file);
  set_first(*model, name, infinity);
  const std::string expected = path + ": tensor '" + name + "' (32): expected finite weights, found inf as element 0";
  EXPECT_EQ(error_of([&] { load_model(path); }), expected);
  EXPECT_EQ(error_of([&] { load_weights(*model, path); }), expected);
  EXPECT_EQ(error_of([&] { load_initial(*model, path); }), expected);
  EXPECT_NE(error_of([&] { save_model(path, *model); }).find("not written: expected finite tensors, found inf"),
            std::string::npos);
  set_first(*model, name, 1e30f);
  EXPECT_NE(error_of([&] { save_model(path, *model, {}, StoredType::kF16); }).find("F16 can hold, found 1e+30"),
            std::string::npos);
}

TEST(Predictor, WeightsSayHowTheyAreUsed) {
  const TemporaryFolder folder;
  const auto model = small_unet(Head::kDpm);
  const Image8 image = picture(90, 50);
  const DepthMap as_it_is = Predictor(*model, {})(image);
  TrainedUse size, scales;
  size.input_size = ImageSize{64, 32};
  size.flip = false;
  scales.scale_height = 0.3;
  scales.scale_width = 1.0 / 3;
  scales.dtype = DType::kBf16;
  for (const TrainedUse& use : {size, scales}) {
    model->set_trained_use(use);
    const DepthMap expected = Predictor(*model, {})(image);
    EXPECT_EQ(expected.size(), image.size());
    EXPECT_NE(expected.values, as_it_is.values);
    save_model(folder / "w.safetensors", *model);
    const auto loaded = load_model(folder / "w.safetensors", []() -> NetworkRecord {
      ADD_FAILURE() << "asked, although the weights say all";
      return {};
    });
    ASSERT_TRUE(loaded->trained_use());
    EXPECT_EQ(loaded->trained_use()->flip, use.flip);
    EXPECT_EQ(loaded->trained_use()->dtype, use.dtype);
    EXPECT_EQ(input_text(*loaded->trained_use()), input_text(use));
    loaded->eval();
    EXPECT_EQ(Predictor(*loaded, {})(image).values, expected.values);
  }
}

// Weights of older versions do not state their use, and published ones nothing at all.
TEST(Predictor, ARecipeServesOlderWeights) {
  const TemporaryFolder folder;
  const std::string path = folder / "w.safetensors";
  const auto model = small_unet(Head::kDpm);
  NetworkRecord record{"mobilenet_unet", model->options(), TrainedUse{}};
  record.use->input_size = ImageSize{64, 32};
  const auto answer = [&] { return record; };
  save_model(path, *model);
  EXPECT_FALSE(load_model(path)->trained_use());
  EXPECT_EQ(load_model(path, answer)->trained_use()->input_size, record.use->input_size);
  record.options.bins = 16;
  EXPECT_EQ(error_of([&] { load_model(path, answer); }), path + ": expected a checkpoint with bins 16, found 8");
  save_state(*model, path, {{"format", "pt"}});
  record.options = model->options();
  record.options.d_max = 10;
  EXPECT_EQ(load_model(path, answer)->options().d_max, 10.0f);
  record.architecture = "dpt_s";  // a recipe of another network
  EXPECT_EQ(load_model(path, answer)->options().d_max, 80.0f);
}

// A Depth Anything 3 whose depth is e^o and whose sky is `sky` everywhere.
std::unique_ptr<DepthAnything> constant_da3(Head head, float o, float sky) {
  const DepthAnythingConfig config{{.dim = 32, .depth = 4, .heads = 2, .taps = {0, 1, 2, 3}, .grid = 2},
                                   {32, 8, {8, 8, 16, 16}, SkyBranch::kRelu}};
  auto network = std::make_unique<DepthAnything>("da3", config, ModelOptions{.head = head});
  network->initialize(9);
  for (const StateEntry& entry : network->state()) {
    if (entry.name.ends_with("output_conv2.2.weight")) copy_(*entry.tensor, zeros(entry.tensor->shape()));
    if (!entry.name.ends_with("output_conv2.2.bias")) continue;
    entry.tensor->data<float>()[0] = entry.name.find("sky") == std::string::npos ? o : sky;
  }
  network->eval();
  return network;
}

void expect_constant(const DepthMap& map, float value) {
  for (const float v : map.values) ASSERT_NEAR(v, value, 1e-5f * value);
}

TEST(Predictor, MetresOfACanonicalHeadFollowTheFocalLengthOfTheNetworksInput) {
  const auto metric = constant_da3(Head::kCanonicalDepth, 0.5f, 0);
  const Predictor predictor(*metric, {.flip = false, .side = 126});
  EXPECT_TRUE(predictor.needs_focal());
  EXPECT_FALSE(predictor.relative());
  const DepthMap unknown = predictor(picture(160, 120));  // 126 x 98
  EXPECT_EQ(name_of(unknown.kind), "depth up to scale");
  EXPECT_EQ(unknown.size(), (ImageSize{160, 120}));
  expect_constant(unknown, std::exp(0.5f));
  const DepthMap known = predictor(picture(160, 120), "image", 150);
  EXPECT_EQ(known.kind, kMetricDepth);
  expect_constant(known, std::exp(0.5f) * 150 * (126.0f / 160 + 98.0f / 120) / 2 / 300);
  // The published example: a mean focal length of 601 at 640 x 480, which the network sees as 504 x 378.
  expect_constant(Predictor(*metric, {.flip = false})(picture(640, 480), "image", 601), std::exp(0.5f) * 1.577625f);
  EXPECT_EQ(
      error_of([&] { predictor.check_focal(0, "list.txt:3"); }),
      "list.txt:3: expected a focal length in pixels behind image and depth, without which da3 has no metres; found "
      "none");
  const auto mono = constant_da3(Head::kRelativeDepth, 0.5f, 0);
  const Predictor relative(*mono, {.flip = true, .side = 28});
  EXPECT_FALSE(relative.needs_focal());
  EXPECT_TRUE(relative.relative());
  EXPECT_EQ(name_of(relative(picture(40, 30), "image", 150).kind), "depth up to scale and shift");
}

TEST(Predictor, LabelsOfDepthAnything3AreInverse) {
  const PredictOptions options{.flip = true, .side = 28, .labels = true};
  for (const Head head : {Head::kRelativeDepth, Head::kCanonicalDepth}) {
    const auto ground = constant_da3(head, 0.5f, 0.29f), sky = constant_da3(head, 0.5f, 0.31f);
    const DepthMap label = Predictor(*ground, options)(picture(40, 30), "image", 150);
    EXPECT_EQ(name_of(label.kind),
              head == Head::kCanonicalDepth ? "inverse depth up to scale" : "inverse depth up to scale and shift");
    expect_constant(label, std::exp(-0.5f));
    const DepthMap unknown = Predictor(*sky, options)(picture(40, 30));
    EXPECT_TRUE(std::ranges::all_of(unknown.values, [](float v) { return std::isnan(v); }));
    expect_constant(Predictor(*sky, {.flip = false, .side = 28})(picture(40, 30)), std::exp(0.5f));
  }
}

// What OpenCV 4 made of the same pictures: the first, the middle and the last pixel.
TEST(FittedImage, IsThatOfTwoStepsOfOpenCv) {
  const InputRule rule{InputRule::Fit::kUpperBound, 28, 14, InputRule::Way::kTwoSteps};
  const struct {
    ImageSize from, to;
    std::array<std::array<int, 3>, 3> pixels;
  } cases[] = {{{40, 30}, {28, 28}, {{{58, 95, 135}, {129, 88, 138}, {99, 143, 123}}}},
               {{20, 15}, {28, 28}, {{{0, 0, 72}, {88, 93, 136}, {42, 75, 135}}}},
               {{28, 24}, {28, 28}, {{{0, 33, 70}, {198, 235, 24}, {189, 226, 1}}}},
               {{11, 28}, {14, 28}, {{{0, 30, 67}, {116, 180, 104}, {199, 236, 6}}}}};
  for (const auto& c : cases) {
    const Image8 image = fitted_image(picture(c.from.width, c.from.height), rule);
    ASSERT_EQ(image.size(), c.to);
    const int middle = c.to.height / 2 * c.to.width + c.to.width / 2, last = c.to.height * c.to.width - 1;
    const int at[] = {0, middle, last};
    for (size_t k = 0; k < 3; ++k) {
      for (size_t channel = 0; channel < 3; ++channel) {
        EXPECT_NEAR(image.rgb[3 * static_cast<size_t>(at[k]) + channel], c.pixels[k][channel], 1) << c.from << ' ' << k;
      }
    }
  }
  const Image8 fits = picture(28, 14);
  EXPECT_EQ(fitted_image(fits, rule).rgb, fits.rgb);
}

TEST(Predictor, DamagedRecordsAreRefused) {
  const TemporaryFolder folder;
  const std::string path = folder / "w.safetensors";
  const auto model = small_unet(Head::kDpm);
  model->set_trained_use(TrainedUse{});
  const auto error = [&](const char* key, const char* value) {
    Metadata metadata = metadata_of(*model);
    metadata[key] = value;
    const float none = 0;
    const TensorToStore tensors[] = {{"decode_head.conv_out.0.bias", StoredType::kF32, {1}, &none},
                                     {"backbone.conv1.conv.weight", StoredType::kF32, {1}, &none}};
    write_safetensors(path, tensors, metadata);
    return error_of([&] { load_model(path); });
  };
  EXPECT_EQ(error("input_size", "640"), path + ": metadata entry 'input_size': expected WIDTHxHEIGHT, found '640'");
  EXPECT_EQ(error("input_side", "0"), path + ": metadata entry 'input_side': expected 1 to 16384, found 0");
  EXPECT_EQ(error("input_size", "0x5"), path + ": metadata entry 'input_size': expected WIDTHxHEIGHT, found '0x5'");
  EXPECT_EQ(error("input_scale", "-1x2"), path + ": metadata entry 'input_scale': expected HEIGHTxWIDTH, found '-1x2'");
  EXPECT_EQ(error("precision", "fp8"), path + ": metadata entry 'precision': expected fp32 or bf16, found 'fp8'");
  EXPECT_NE(error("normalisation", "none").find("expected a checkpoint with normalisation RGB 0..255"),
            std::string::npos);
}

}  // namespace
}  // namespace depthstill
