// These tests say what model.init accepts.
#include "models/model_file.h"

#include <gtest/gtest.h>

#include "engine/io/safetensors.h"
#include "models/model_table.h"
#include "tests/io/test_files.h"

namespace depthstill {
namespace {

using testing_files::error_of;
using testing_files::TemporaryFolder;

std::unique_ptr<DepthModel> small_dpt(Head head, uint64_t seed) {
  auto student = make_model("dpt_s", {.head = head});
  student->initialize(seed);
  return student;
}

std::vector<float> values_of(const DepthModel& student, const std::string& name) {
  for (const StateEntry& entry : student.state()) {
    if (entry.name == name) return to_vector<float>(*entry.tensor);
  }
  ADD_FAILURE() << "no tensor " << name;
  return {};
}

constexpr const char* kOfEncoder = "pretrained.blocks.3.attn.qkv.weight";
constexpr const char* kOfHead = "depth_head.projects.1.weight";

TEST(LoadInitial, AMetricNetworkStartsFromARelativeOne) {
  const TemporaryFolder folder;
  const auto relative = small_dpt(Head::kRelative, 1);
  save_model(folder / "relative.safetensors", *relative, 3);
  const auto metric = small_dpt(Head::kRegression, 2);
  const InitialWeights loaded = load_initial(*metric, folder / "relative.safetensors");
  EXPECT_FALSE(loaded.folded);
  for (const char* name : {kOfEncoder, kOfHead}) EXPECT_EQ(values_of(*metric, name), values_of(*relative, name));
  const auto unet = make_model("mobilenet_unet", {});
  EXPECT_NE(error_of([&] { load_initial(*unet, folder / "relative.safetensors"); }).find("found those of dpt_s"),
            std::string::npos);
}

// The weights are as torch.hub has them: no prefix, no head.
TEST(LoadInitial, ADinoV2EncoderLeavesTheHeadAsItIs) {
  const TemporaryFolder folder;
  const auto source = small_dpt(Head::kRelative, 1), student = small_dpt(Head::kRegression, 2);
  const std::string prefix = "pretrained.";
  std::vector<Tensor> tensors;
  std::vector<TensorToStore> stored;
  for (const StateEntry& entry : source->state()) {
    if (!entry.name.starts_with(prefix)) continue;
    tensors.push_back(to_file_layout(*entry.tensor, entry.layout));
    TensorToStore tensor{entry.name.substr(prefix.size()), StoredType::kF32, {}, tensors.back().raw()};
    for (int d = 0; d < tensors.back().shape().rank(); ++d) tensor.shape.push_back(tensors.back().size(d));
    stored.push_back(std::move(tensor));
  }
  write_safetensors(folder / "dinov2.safetensors", stored);
  const std::vector<float> head = values_of(*student, kOfHead);
  load_initial(*student, folder / "dinov2.safetensors");
  EXPECT_EQ(values_of(*student, kOfEncoder), values_of(*source, kOfEncoder));
  EXPECT_EQ(values_of(*student, kOfHead), head);
}

TEST(LoadInitial, OneEncoderServesEveryNetworkThatHasIt) {
  const TemporaryFolder folder;
  auto large = make_model("mobilenet_unet", {.bins = 3, .decoder_widths = {4, 4, 4, 4}});
  large->initialize(1);
  save_state(*large->imagenet_encoder(), folder / "encoder.safetensors");
  const auto light = make_model("mobilenet_unet_small", {.bins = 3});
  load_initial(*light, folder / "encoder.safetensors");
  constexpr const char* kDeepest = "backbone.layer7.0.conv.2.conv.weight";
  EXPECT_EQ(values_of(*light, kDeepest), values_of(*large, kDeepest));
  const auto other = make_model("resnet18_unet", {.bins = 3});
  EXPECT_NE(
      error_of([&] { load_initial(*other, folder / "encoder.safetensors"); }).find("expected weights for resnet18"),
      std::string::npos);
}

// Of another head's network, with a range and a decoder of its own, too: nothing of the head is read.
TEST(LoadInitial, TheEncoderAloneOfAWholeNetwork) {
  const TemporaryFolder folder;
  const auto source = small_dpt(Head::kRelative, 1), student = small_dpt(Head::kRelative, 2);
  save_model(folder / "whole.safetensors", *source, 3);
  const std::vector<float> head = values_of(*student, kOfHead);
  load_initial(*student, folder / "whole.safetensors", InitialParts::kEncoder);
  EXPECT_EQ(values_of(*student, kOfEncoder), values_of(*source, kOfEncoder));
  EXPECT_EQ(values_of(*student, kOfHead), head);

  auto large = make_model("mobilenet_unet", {.bins = 3, .decoder_widths = {4, 4, 4, 4}});
  large->initialize(1);
  save_model(folder / "unet.safetensors", *large, 1);
  const auto light = make_model("mobilenet_unet_small", {.bins = 5});
  const std::vector<float> output = values_of(*light, "decode_head.conv_out.0.weight");
  load_initial(*light, folder / "unet.safetensors", InitialParts::kEncoder);
  constexpr const char* kDeepest = "backbone.layer7.0.conv.2.conv.weight";
  EXPECT_EQ(values_of(*light, kDeepest), values_of(*large, kDeepest));
  EXPECT_EQ(values_of(*light, "decode_head.conv_out.0.weight"), output);
  EXPECT_NE(error_of([&] { load_initial(*light, folder / "unet.safetensors"); }).find("found those of mobilenet_unet"),
            std::string::npos);
}

TEST(SaveModel, WidthsOfTheDecoderStandInTheFile) {
  const TemporaryFolder folder;
  const ModelOptions options{.bins = 3, .decoder_widths = {4, 6, 8, 10, 12}};
  save_model(folder / "w.safetensors", *make_model("mobilenet_unet_small", options));
  const auto loaded = load_model(folder / "w.safetensors");
  EXPECT_EQ(loaded->name(), "mobilenet_unet_small");
  EXPECT_EQ(loaded->options().decoder_widths, options.decoder_widths);
  const auto usual = make_model("mobilenet_unet_small", {.bins = 3});
  EXPECT_NE(error_of([&] { load_weights(*usual, folder / "w.safetensors"); }), "");
  for (const char* widths : {"", "4 6", "4 x 8", "4 6 8 10 -12", "99999999999999999999"}) {
    const SafetensorsFile file(folder / "w.safetensors");
    Metadata metadata = file.metadata();
    metadata["decoder_widths"] = widths;
    save_state(*loaded, folder / "bad.safetensors", metadata);
    testing_files::expect_clear(error_of([&] { load_model(folder / "bad.safetensors"); }), "");
  }
}

}  // namespace
}  // namespace depthstill
