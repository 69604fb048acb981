// Key families: every published spelling of a network's names ends in the same map.
#include "models/checkpoint_keys.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "engine/checkpoint.h"
#include "engine/io/safetensors.h"
#include "kernels/core/messages.h"
#include "models/model_file.h"
#include "models/model_table.h"
#include "tests/io/test_files.h"

namespace depthstill {
namespace {

using testing_files::error_of;
using testing_files::TemporaryFolder;

using Names = std::set<std::string>;

UnetModel unet(const char* name, const ModelOptions& options = {}) {
  return UnetModel(name, std::get<UnetConfig>(find_model(name).config), options);
}

void add_module(Names& names, const std::string& module, bool bias = true) {
  names.insert(module + ".weight");
  if (bias) names.insert(module + ".bias");
}

// The names of Depth Anything V2 with `depth` blocks.
Names canonical_names(int depth, bool head) {
  Names names = {"pretrained.cls_token", "pretrained.pos_embed", "pretrained.mask_token"};
  add_module(names, "pretrained.patch_embed.proj");
  add_module(names, "pretrained.norm");
  for (int i = 0; i < depth; ++i) {
    const std::string block = concat_text("pretrained.blocks.", i, ".");
    for (const char* module : {"norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"})
      add_module(names, block + module);
    names.insert({block + "ls1.gamma", block + "ls2.gamma"});
  }
  if (!head) return names;
  for (int i = 0; i < 4; ++i) {
    add_module(names, concat_text("depth_head.projects.", i));
    if (i != 2) add_module(names, concat_text("depth_head.resize_layers.", i));
    add_module(names, concat_text("depth_head.scratch.layer", i + 1, "_rn"), false);
    const std::string fusion = concat_text("depth_head.scratch.refinenet", i + 1, ".");
    add_module(names, fusion + "out_conv");
    for (const char* conv : {"resConfUnit1.conv1", "resConfUnit1.conv2", "resConfUnit2.conv1", "resConfUnit2.conv2"})
      add_module(names, fusion + conv);
  }
  for (const char* conv : {"output_conv1", "output_conv2.0", "output_conv2.2"})
    add_module(names, std::string("depth_head.scratch.") + conv);
  return names;
}

// The names as transformers saves them; with `recent`, as it names them in memory since version 5.
Names hugging_face_names(int depth, bool recent) {
  Names names;
  for (const char* name : {"cls_token", "mask_token", "position_embeddings"})
    names.insert(std::string("backbone.embeddings.") + name);
  add_module(names, "backbone.embeddings.patch_embeddings.projection");
  add_module(names, "backbone.layernorm");
  for (int i = 0; i < depth; ++i) {
    const std::string layer = concat_text("backbone.encoder.layer.", i, ".");
    for (const char* module : {"norm1", "norm2", "mlp.fc1", "mlp.fc2"}) add_module(names, layer + module);
    for (const char* part : {"query", "key", "value"})
      add_module(names, layer + "attention." +
                            (recent ? std::string(1, part[0]) + "_proj" : std::string("attention.") + part));
    add_module(names, layer + (recent ? "attention.o_proj" : "attention.output.dense"));
    names.insert({layer + "layer_scale1.lambda1", layer + "layer_scale2.lambda1"});
  }
  for (int i = 0; i < 4; ++i) {
    const std::string stage = concat_text("neck.reassemble_stage.layers.", i, ".");
    add_module(names, stage + "projection");
    if (i != 2) add_module(names, stage + "resize");
    add_module(names, concat_text("neck.convs.", i), false);
    const std::string fusion = concat_text("neck.fusion_stage.layers.", i, ".");
    add_module(names, fusion + "projection");
    for (const char* layer : {"residual_layer1", "residual_layer2"})
      for (const char* conv : {".convolution1", ".convolution2"}) add_module(names, fusion + layer + conv);
  }
  for (const char* conv : {"head.conv1", "head.conv2", "head.conv3"}) add_module(names, conv);
  return names;
}

// Tensors (2, 3) of running numbers under these names; class tokens are (1, 1, width).
std::string write_names(const TemporaryFolder& folder, const Names& names, int64_t width) {
  static std::vector<float> values(4096);
  std::iota(values.begin(), values.end(), 0.0f);
  std::vector<TensorToStore> tensors;
  for (const std::string& name : names) {
    const float* data = values.data() + tensors.size();
    if (name.ends_with("cls_token"))
      tensors.push_back({name, StoredType::kF32, {1, 1, width}, data});
    else
      tensors.push_back({name, StoredType::kF32, {2, 3}, data});
  }
  write_safetensors(folder / "w.safetensors", tensors);
  return folder / "w.safetensors";
}

Names prefixed(const Names& names, const std::string& prefix) {
  Names result;
  for (const std::string& name : names) result.insert(prefix + name);
  return result;
}

Names replaced(const Names& names, const std::string& from, const std::string& to) {
  Names result;
  for (const std::string& name : names) result.insert(name.starts_with(from) ? to + name.substr(from.size()) : name);
  return result;
}

// Our names of the monocular networks of Depth Anything 3.
Names depth_anything_3_names(int depth) {
  Names names = canonical_names(depth, true);
  names.erase("pretrained.mask_token");
  std::erase_if(names,
                [](const std::string& name) { return name.find("refinenet4.resConfUnit1") != std::string::npos; });
  for (const char* conv : {"0", "2"}) add_module(names, concat_text("depth_head.scratch.sky_output_conv2.", conv));
  return names;
}

TEST(CheckpointKeys, EverySpellingOfDepthAnything3EndsInTheSameNames) {
  const Names ours = depth_anything_3_names(12);
  const auto spelt = [&](const char* encoder, const char* head) {
    return replaced(replaced(ours, "pretrained.", encoder), "depth_head.", head);
  };
  const Names authors = spelt("backbone.pretrained.", "head.");
  const Names training =
      replaced(spelt("net.pretrained.", "all_heads.head."), "all_heads.head.scratch.sky_output_conv2.",
               "all_heads.head.scratch.output_conv2_additional.sky_mask.");
  Names lightly_train = spelt("backbone.", "decoder.");
  lightly_train.insert("backbone.mask_token");
  const struct {
    Names names;
    int64_t width;
    KeyFamily family;
    const char* architecture;
  } cases[] = {{authors, 1024, KeyFamily::kDepthAnything3, "da3mono_l"},
               {prefixed(authors, "model."), 1024, KeyFamily::kDepthAnything3, "da3mono_l"},
               {prefixed(training, "module."), 1024, KeyFamily::kDepthAnything3, "da3mono_l"},
               {training, 768, KeyFamily::kDepthAnything3, "da3mono_b"},
               {lightly_train, 384, KeyFamily::kDepthAnything3, "da3mono_s"},
               {ours, 384, KeyFamily::kDepthAnything, "da3mono_s"}};
  const TemporaryFolder folder;
  for (const auto& c : cases) {
    SCOPED_TRACE(testing::Message() << *c.names.begin() << " " << c.architecture);
    const auto file = open_mapped_weights(write_names(folder, c.names, c.width));
    EXPECT_EQ(file->map().family, c.family);
    EXPECT_EQ(file->map().architecture, c.architecture);
    EXPECT_FALSE(file->map().encoder_only);
    Names found;
    for (const StoredTensor& tensor : file->tensors()) found.insert(tensor.name);
    found.erase("pretrained.mask_token");
    EXPECT_EQ(found, ours);
    EXPECT_TRUE(is_exponential(options_for(file->map()).head));
  }
  Names several_views;  // another head
  for (const std::string& name : authors) {
    if (name.find("sky_output") == std::string::npos) several_views.insert("model." + name);
  }
  testing_files::expect_clear(error_of([&] { open_mapped_weights(write_names(folder, several_views, 384)); }),
                              "expected names of Depth Anything V2 or 3 (monocular)");
  testing_files::expect_clear(error_of([&] { open_mapped_weights(write_names(folder, lightly_train, 192)); }),
                              "expected 384, 768 or 1024 channels, found 192");
}

// As published: shapes too, without the tensors that are never run.
TEST(CheckpointKeys, FilesOfDepthAnything3LoadAsMonoOrMetric) {
  const TemporaryFolder folder;
  const auto network = make_model("da3metric_s", {.head = Head::kCanonicalDepth});
  network->initialize(5);
  for (const bool lightly_train : {false, true}) {
    std::vector<Tensor> kept;
    std::vector<TensorToStore> tensors;
    for (const StateEntry& entry : network->state()) {
      kept.push_back(to_file_layout(entry.tensor->detach(), entry.layout));
      std::vector<int64_t> sizes;
      for (int d = 0; d < kept.back().shape().rank(); ++d) sizes.push_back(kept.back().shape()[d]);
      const std::string& name = entry.name;
      const bool head = name.starts_with("depth_head.");
      const std::string rest = name.substr(std::string_view("pretrained.").size());  // "depth_head." is as long
      const std::string prefix =
          lightly_train ? (head ? "decoder." : "backbone.") : (head ? "model.head." : "model.backbone.pretrained.");
      tensors.push_back({prefix + rest, StoredType::kF32, sizes, kept.back().data<float>()});
    }
    const std::vector<float> none(384);
    if (lightly_train) tensors.push_back({"backbone.mask_token", StoredType::kF32, {1, 384}, none.data()});
    const std::string path = folder / "w.safetensors";
    write_safetensors(path, tensors);
    const KeyMap map = open_mapped_weights(path)->map();
    EXPECT_EQ(map.architecture, "da3mono_s");
    const KeyCheck keys = check_keys(map, *network);
    EXPECT_TRUE(keys.loads());
    EXPECT_EQ(keys.matched.size(), 238u);
    EXPECT_EQ(keys.dead.size(), lightly_train ? 1u : 0u);
    if (!lightly_train) continue;
    const auto loaded = load_model(path, [] {
      return NetworkRecord{"da3metric_s", {.head = Head::kCanonicalDepth}, {}};
    });
    EXPECT_EQ(loaded->name(), "da3metric_s");
    for (size_t i = 0; i < network->state().size(); i += 17) {
      EXPECT_EQ(to_vector<float>(*loaded->state()[i].tensor), to_vector<float>(*network->state()[i].tensor)) << i;
    }
  }
}

TEST(CheckpointKeys, EveryFamilyOfDptEndsInTheSameNames) {
  const Names whole = canonical_names(12, true), encoder = canonical_names(12, false);
  const Names large = replaced(replaced(whole, "pretrained.blocks.", "backbone.blocks.0."), "pretrained.", "backbone.");
  struct Case {
    Names names;
    int64_t width;
    KeyFamily family;
    const char* architecture;
    bool encoder_only;
  };
  const Case cases[] = {
      {whole, 384, KeyFamily::kDepthAnything, "dpt_s", false},
      {prefixed(whole, "module."), 768, KeyFamily::kDepthAnything, "dpt_b", false},
      {large, 1024, KeyFamily::kDistillAnyDepth, "dpt_l", false},
      {hugging_face_names(12, false), 384, KeyFamily::kHuggingFace, "dpt_s", false},
      {hugging_face_names(12, true), 768, KeyFamily::kHuggingFace, "dpt_b", false},
      {replaced(encoder, "pretrained.", ""), 1536, KeyFamily::kDinoV2, "dpt_g", true},
      {encoder, 1024, KeyFamily::kDepthAnything, "dpt_l", true},
  };
  const TemporaryFolder folder;
  for (const Case& c : cases) {
    const auto file = open_mapped_weights(write_names(folder, c.names, c.width));
    SCOPED_TRACE(testing::Message() << name_of(c.family) << " " << c.architecture);
    EXPECT_EQ(file->map().family, c.family);
    EXPECT_EQ(file->map().architecture, c.architecture);
    EXPECT_EQ(file->map().encoder_only, c.encoder_only);
    Names found;
    for (const StoredTensor& tensor : file->tensors()) found.insert(tensor.name);
    EXPECT_EQ(found, c.encoder_only ? encoder : whole);
  }
}

TEST(CheckpointKeys, QueryKeyAndValueAreJoinedInThisOrder) {
  const TemporaryFolder folder;
  for (const bool recent : {false, true}) {
    const std::string path = write_names(folder, hugging_face_names(2, recent), 384);
    const SafetensorsFile source(path);
    const auto file = open_mapped_weights(path);
    const std::string attention = "backbone.encoder.layer.1.attention.";
    std::vector<float> expected;
    for (const char* part : {"query", "key", "value"}) {
      const std::string name =
          recent ? std::string(1, part[0]) + "_proj.weight" : concat_text("attention.", part, ".weight");
      const std::vector<float> values = source.read_floats(attention + name);
      expected.insert(expected.end(), values.begin(), values.end());
    }
    EXPECT_EQ(file->at("pretrained.blocks.1.attn.qkv.weight").shape, (std::vector<int64_t>{6, 3}));
    EXPECT_EQ(file->read_floats("pretrained.blocks.1.attn.qkv.weight"), expected);
    // The first of their fusion layers works on the deepest map.
    EXPECT_EQ(file->read_floats("depth_head.scratch.refinenet4.out_conv.weight"),
              source.read_floats("neck.fusion_stage.layers.0.projection.weight"));
    EXPECT_EQ(file->read_floats("depth_head.scratch.layer1_rn.weight"), source.read_floats("neck.convs.0.weight"));
  }
  Names names = hugging_face_names(2, false);
  names.erase("backbone.encoder.layer.0.attention.attention.key.bias");
  const std::string message = error_of([&] { open_mapped_weights(write_names(folder, names, 384)); });
  EXPECT_NE(message.find("pretrained.blocks.0.attn.qkv.bias: expected 3 tensors to join"), std::string::npos)
      << message;
}

TEST(CheckpointKeys, APrefixOfAllNamesIsDroppedAndSaid) {
  const TemporaryFolder folder;
  const Names whole = canonical_names(12, true);
  std::vector<std::string> lines;
  set_message_sink([&](const std::string& line) { lines.push_back(line); });
  for (const std::string prefix : {"module.", "_orig_mod.", "model.", "student.", "net.", "_orig_mod.module.",
                                   "module._orig_mod.", "model.student._orig_mod.module.", "a.b.c.d.e.f.g.h."}) {
    lines.clear();
    for (const Names& names :
         {whole, hugging_face_names(12, false), replaced(canonical_names(12, false), "pretrained.", "")}) {
      const auto file = open_mapped_weights(write_names(folder, prefixed(names, prefix), 384));
      EXPECT_EQ(file->map().dropped_prefix, prefix);
      EXPECT_NE(file->find("pretrained.cls_token"), nullptr) << prefix;
    }
    ASSERT_EQ(lines.size(), 3u);
    EXPECT_EQ(lines[0], folder / "w.safetensors" + ": dropped the prefix '" + prefix + "' of all names");
  }
  lines.clear();
  EXPECT_EQ(open_mapped_weights(write_names(folder, whole, 384))->map().dropped_prefix, "");
  EXPECT_EQ(lines.size(), 0u);
  set_message_sink(nullptr);
  Names most = prefixed(whole, "student.");  // one name is not of the network
  most.insert("teacher.cls_token");
  const std::string message = error_of([&] { open_mapped_weights(write_names(folder, most, 384)); });
  EXPECT_NE(message.find("found 'student.depth_head.projects.0.bias', 'student.depth_head.projects.0.weight' and "),
            std::string::npos)
      << message;
  EXPECT_TRUE(message.ends_with(concat_text(" among ", most.size(), " names"))) << message;
}

TEST(CheckpointKeys, UnknownFilesSaySo) {
  const TemporaryFolder folder;
  const auto message = [&](const Names& names, int64_t width) {
    return error_of([&] { open_mapped_weights(write_names(folder, names, width)); });
  };
  testing_files::expect_clear(message({"a.weight", "b.weight"}, 1), "w.safetensors: expected names of");
  EXPECT_TRUE(message({"a.weight", "b.weight"}, 1).ends_with("found 'a.weight' and 'b.weight'"));
  EXPECT_TRUE(message({}, 1).ends_with("found no tensors"));
  testing_files::expect_clear(message(canonical_names(1, false), 100),
                              "expected 384, 768, 1024 or 1536 channels, found 100");
  testing_files::expect_clear(message({"conv1.weight", "layer1.0.conv1.weight", "layer3.5.conv1.weight"}, 1),
                              "expected ResNet-18 or ResNet-50");
}

TEST(CheckpointKeys, ChecksNamesAndShapesAgainstTheNetwork) {
  const TemporaryFolder folder;
  UnetModel student = unet("mobilenet_unet");
  save_state(student, folder / "whole.safetensors");
  const auto whole = open_mapped_weights(folder / "whole.safetensors");
  EXPECT_EQ(whole->map().family, KeyFamily::kUnet);
  EXPECT_EQ(whole->map().architecture, "mobilenet_unet");
  EXPECT_EQ(options_for(whole->map()).bins, 257);
  const KeyCheck good = check_keys(whole->map(), student);
  EXPECT_TRUE(good.loads());
  EXPECT_EQ(good.matched.size(), student.state().size());

  UnetModel narrow = unet("mobilenet_unet", {.bins = 64});
  KeyCheck check = check_keys(whole->map(), narrow);
  EXPECT_FALSE(check.loads());
  EXPECT_EQ(
      check.mismatched,
      (std::vector<std::string>{"decode_head.conv_out.0.weight: expected shape (64, 128, 1, 1), found (257, 128, 1, 1)",
                                "decode_head.conv_out.0.bias: expected shape (64), found (257)"}));

  // A published file: the layers that are never run, and what belongs to nothing.
  std::vector<NamedTensor> extra;
  for (const auto& dead : student.dead_parameters()) extra.push_back({dead.name, empty(dead.file_shape)});
  extra.push_back({"decode_head.more.weight", empty({2})});
  save_state(student, folder / "more.safetensors", {}, extra);
  const auto more = open_mapped_weights(folder / "more.safetensors");
  check = check_keys(more->map(), student);
  EXPECT_EQ(check.dead.size(), student.dead_parameters().size());
  EXPECT_EQ(check.unknown, std::vector<std::string>{"decode_head.more.weight (2)"});

  UnetModel other = unet("resnet18_unet");
  EXPECT_FALSE(check_keys(whole->map(), other).missing.empty());
}

TEST(CheckpointKeys, UnetsAreToldApartByTheirDecoders) {
  const TemporaryFolder folder;
  struct Case {
    const char* model;
    ModelOptions options;
  };
  for (const auto& [model, options] :
       {Case{"mobilenet_unet_small", {.bins = 5}}, Case{"mobilenet_unet_small", {.decoder_widths = {8, 8, 16, 16, 24}}},
        Case{"mobilenet_unet", {.decoder_widths = {8, 16, 16, 24}}}}) {
    UnetModel student = unet(model, options);
    save_state(student, folder / "w.safetensors");
    const auto file = open_mapped_weights(folder / "w.safetensors");
    EXPECT_EQ(file->map().architecture, model);
    const ModelOptions found = options_for(file->map());
    EXPECT_EQ(found.decoder_widths, options.decoder_widths);
    EXPECT_EQ(found.bins, options.bins);
    EXPECT_TRUE(check_keys(file->map(), student).loads());
  }
}

TEST(CheckpointKeys, ClassifiersBecomeEncoders) {
  const TemporaryFolder folder;
  UnetModel student = unet("resnet18_unet");
  std::vector<TensorToStore> tensors;
  static const std::vector<float> zeros(512 * 512 * 9);
  for (const StateEntry& entry : student.encoder().state()) {
    const Shape shape = to_file_shape(entry.tensor->shape(), entry.layout);
    std::vector<int64_t> sizes;
    for (int d = 0; d < shape.rank(); ++d) sizes.push_back(shape[d]);
    tensors.push_back({entry.name, entry.tensor->dtype() == DType::kInt64 ? StoredType::kI64 : StoredType::kF32, sizes,
                       zeros.data()});
  }
  tensors.push_back({"fc.weight", StoredType::kF32, {1000, 512}, zeros.data()});
  write_safetensors(folder / "r.safetensors", tensors);
  const auto file = open_mapped_weights(folder / "r.safetensors");
  EXPECT_EQ(file->map().architecture, "resnet18_unet");
  EXPECT_TRUE(file->map().encoder_only);
  const KeyCheck check = check_keys(file->map(), student);
  EXPECT_TRUE(check.loads());
  EXPECT_EQ(check.left_over, std::vector<std::string>{"fc.weight"});
  EXPECT_EQ(check.matched.size(), student.encoder().state().size());
}

}  // namespace
}  // namespace depthstill
