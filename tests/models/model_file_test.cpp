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

}  // namespace
}  // namespace depthstill
