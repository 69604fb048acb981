#include "models/checkpoint_keys.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "engine/io/text_file.h"
#include "kernels/core/messages.h"
#include "models/key_rules.h"
#include "models/model_table.h"
#include "models/resnet.h"
#include "models/unet_decoder.h"

namespace depthstill {
namespace {

const std::string kSkyBranch = "scratch.sky_output_conv2.", kOldSkyBranch = "scratch.output_conv2_additional.sky_mask.";
constexpr int kMaxPrefixes = 8;  // wrappers around wrappers: "module._orig_mod.model.student."

// The names of a file without their first `skip` characters, which all of them share.
class Keys {
 public:
  Keys(const WeightsFile& file, size_t skip) : path_(file.path()), skip_(skip) {
    for (const StoredTensor& tensor : file.tensors()) tensors_.emplace(tensor.name.substr(skip_), &tensor);
  }

  std::string name(const StoredTensor& tensor) const { return tensor.name.substr(skip_); }
  bool has(const std::string& name) const { return tensors_.contains(name); }
  bool has_prefix(const std::string& prefix) const {
    const auto next = tensors_.lower_bound(prefix);
    return next != tensors_.end() && next->first.starts_with(prefix);
  }
  // Size of a dimension, -1 if there is no such tensor or dimension.
  int64_t size(const std::string& name, size_t dim) const {
    const auto found = tensors_.find(name);
    return found == tensors_.end() || found->second->shape.size() <= dim ? -1 : found->second->shape[dim];
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  size_t skip_;
  std::map<std::string, const StoredTensor*> tensors_;
};

std::optional<KeyFamily> recognise(const Keys& keys) {
  if (keys.has("pretrained.layer1.0.weight")) return KeyFamily::kMidas;
  if (keys.has("pretrained.cls_token")) return KeyFamily::kDepthAnything;
  // Before Distill-Any-Depth, whose encoder LightlyTrain's is called alike; and with the sky branch, which the authors'
  // networks for several views do not have.
  for (const std::string head : {"head.", "all_heads.head.", "decoder."}) {
    if (keys.has_prefix(head + kSkyBranch) || keys.has_prefix(head + kOldSkyBranch)) return KeyFamily::kDepthAnything3;
  }
  if (keys.has_prefix("backbone.blocks.")) return KeyFamily::kDistillAnyDepth;
  if (keys.has("backbone.embeddings.cls_token") || keys.has("embeddings.cls_token")) return KeyFamily::kHuggingFace;
  if (keys.has("cls_token") && keys.has("patch_embed.proj.weight")) return KeyFamily::kDinoV2;
  if (keys.has_prefix("decode_head.")) return KeyFamily::kUnet;
  if (keys.has("features.0.0.weight")) return KeyFamily::kMobileNetV2;
  for (const std::string prefix : {"backbone.", ""}) {
    if (keys.has(prefix + "conv1.conv.weight")) return KeyFamily::kMobileNetV2;
    if (keys.has(prefix + "conv1.weight") && keys.has(prefix + "layer1.0.conv1.weight")) return KeyFamily::kResNet;
  }
  return {};
}

// Where the names go on behind their first component from `skip` on, if all of them share it.
std::optional<size_t> behind_shared_component(const std::vector<StoredTensor>& tensors, size_t skip) {
  const size_t dot = tensors.empty() ? std::string::npos : tensors.front().name.find('.', skip);
  if (dot == std::string::npos) return {};
  const std::string prefix = tensors.front().name.substr(0, dot + 1);
  const auto shares = [&](const StoredTensor& tensor) { return tensor.name.starts_with(prefix); };
  return std::all_of(tensors.begin(), tensors.end(), shares) ? std::optional(prefix.size()) : std::nullopt;
}

[[noreturn]] void fail_unknown(const WeightsFile& file) {
  const auto quoted = [](const StoredTensor& tensor) { return concat_text("'", printable(tensor.name), "'"); };
  const auto first = std::span(file.tensors()).first(std::min<size_t>(file.tensors().size(), 3));
  fail(file.path(),
       ": expected names of Depth Anything V2 or 3 (monocular), Distill-Any-Depth, transformers, DINOv2, TIE-KD, MiDaS "
       "small ",
       "or a MobileNetV2 or ResNet classifier of torchvision or OpenMMLab, found ",
       first.empty() ? "no tensors" : list_text(first, quoted, " and "),
       first.size() < file.tensors().size() ? concat_text(" among ", file.tensors().size(), " names") : "");
}

// Training wrappers put a prefix in front of all names: DistributedDataParallel `module.`, torch.compile `_orig_mod.`,
// Lightning the module's attribute, and combinations. Drops as many as it takes to know the rest, and no more.
Keys recognised_keys(const WeightsFile& file, KeyMap& map) {
  size_t skip = 0;
  for (int dropped = 0; dropped <= kMaxPrefixes; ++dropped) {
    Keys keys(file, skip);
    if (const auto family = recognise(keys)) {
      map.family = *family;
      map.dropped_prefix = file.tensors().front().name.substr(0, skip);
      return keys;
    }
    const auto next = behind_shared_component(file.tensors(), skip);
    if (!next) break;
    skip = *next;
  }
  fail_unknown(file);
}

// The names of the rows whose configs are of a type, by what tells them apart.
template <class Config>
std::vector<std::pair<Config, std::string>> rows_of() {
  std::vector<std::pair<Config, std::string>> rows;
  for (const ModelRow& row : model_table()) {
    if (const auto* config = std::get_if<Config>(&row.config)) rows.emplace_back(*config, row.name);
  }
  return rows;
}

std::string dpt_architecture(const Keys& keys, const std::string& class_token, bool sky) {
  const int64_t width = keys.size(class_token, 2);
  auto rows = rows_of<DepthAnythingConfig>();
  std::set<int64_t> widths;  // of networks with the same weights, the first
  std::erase_if(rows, [&](const auto& row) {
    return row.first.looks_for_sky() != sky || !widths.insert(row.first.encoder.dim).second;
  });
  for (const auto& [config, name] : rows) {
    if (config.encoder.dim == width) return name;
  }
  fail(keys.path(), ": ", class_token, ": expected ",
       list_text(
           rows, [](const auto& row) { return row.first.encoder.dim; }, " or "),
       " channels, found ", width);
}

std::vector<std::pair<UnetConfig, std::string>> unets_with(EncoderKind encoder, size_t taps = 0) {
  auto rows = rows_of<UnetConfig>();
  std::erase_if(rows, [&](const auto& row) {
    return row.first.encoder.kind != encoder || (taps > 0 && row.first.widths.size() != taps);
  });
  return rows;
}

// They differ in the number of taps, one per width of the decoder; an encoder alone fits them all.
std::string mobilenet_architecture(size_t taps = 0) {
  const auto rows = unets_with(EncoderKind::kMobileNetV2, taps);
  return (rows.empty() ? unets_with(EncoderKind::kMobileNetV2) : rows).at(0).second;
}

std::string resnet_architecture(const Keys& keys, const std::string& prefix) {
  int blocks = 0;
  while (keys.has(concat_text(prefix, "layer3.", blocks, ".conv1.weight"))) ++blocks;
  const bool bottleneck = keys.has(prefix + "layer1.0.conv3.weight");
  const auto rows = unets_with(EncoderKind::kResNet);
  for (const auto& [config, name] : rows) {
    const ResNetConfig& resnet = resnet_config(config.encoder.depth);
    if (resnet.blocks[2] == blocks && resnet.bottleneck == bottleneck) return name;
  }
  fail(keys.path(), ": expected ",
       list_text(
           rows, [](const auto& row) { return concat_text("ResNet-", row.first.encoder.depth); }, " or "),
       ", found a ResNet with ", blocks, " blocks in its third stage");
}

void infer_unet(const Keys& keys, KeyMap& map) {
  const auto channels_of = [&](const std::string& conv) { return keys.size("decode_head." + conv + ".weight", 0); };
  const std::vector<int64_t> widths = UnetDecoder::stored_widths(channels_of);
  const bool mobilenet = keys.has("backbone.conv1.conv.weight");
  map.architecture = mobilenet ? mobilenet_architecture(widths.size()) : resnet_architecture(keys, "backbone.");
  const auto& usual = std::get<UnetConfig>(find_model(map.architecture).config).widths;
  if (widths != usual && widths.size() == usual.size()) map.decoder_widths = widths;
}

void infer_architecture(const Keys& keys, KeyMap& map) {
  const auto dpt = [&](const char* class_token, bool whole) {
    const bool sky = map.family == KeyFamily::kDepthAnything3 || keys.has_prefix("depth_head." + kSkyBranch);
    map.architecture = dpt_architecture(keys, class_token, sky);
    map.encoder_only = !whole;
  };
  const auto classifier = [&](const std::string& architecture) {
    map.architecture = architecture;
    map.encoder_only = true;
  };
  switch (map.family) {
    case KeyFamily::kMidas:
      map.architecture = rows_of<MidasSmallConfig>().at(0).second;
      return;
    case KeyFamily::kDepthAnything:
      return dpt("pretrained.cls_token", keys.has_prefix("depth_head."));
    case KeyFamily::kDistillAnyDepth:
      return dpt("backbone.cls_token", keys.has_prefix("depth_head."));
    case KeyFamily::kDepthAnything3:
      for (const char* token : {"backbone.pretrained.cls_token", "net.pretrained.cls_token", "backbone.cls_token"}) {
        if (keys.has(token)) return dpt(token, true);
      }
      fail(keys.path(), ": expected the encoder's cls_token beside the head of Depth Anything 3, found none");
    case KeyFamily::kHuggingFace: {
      const bool prefixed = keys.has("backbone.embeddings.cls_token");
      return dpt(prefixed ? "backbone.embeddings.cls_token" : "embeddings.cls_token", keys.has_prefix("neck."));
    }
    case KeyFamily::kDinoV2:
      return dpt("cls_token", false);
    case KeyFamily::kUnet:
      return infer_unet(keys, map);
    case KeyFamily::kMobileNetV2:
      return classifier(mobilenet_architecture());
    case KeyFamily::kResNet:
      return classifier(resnet_architecture(keys, keys.has("backbone.conv1.weight") ? "backbone." : ""));
  }
}

using Table = std::map<std::string, std::string>;

// The units of the encoder give the table, as they know their names in both schemes. It has names of modules only,
// without "weight" etc.
Table encoder_table(const std::string& architecture) {
  const std::unique_ptr<Encoder> encoder = make_encoder(std::get<UnetConfig>(find_model(architecture).config).encoder);
  Table table;
  for (const ConvBn& unit : encoder->units()) {
    const UnitNames& names = unit.names;
    for (const auto& [from, to] : {std::pair(names.torchvision_conv, names.conv),
                                   {names.torchvision_bn, names.bn},
                                   {names.conv, names.conv},
                                   {names.bn, names.bn}}) {
      table[from] = "backbone." + to;
      table["backbone." + from] = "backbone." + to;
    }
  }
  return table;
}

Renamed rename(const KeyMap& map, const Table& table, const std::string& key) {
  switch (map.family) {
    case KeyFamily::kDistillAnyDepth:
      return rename_distill_any_depth(key);
    case KeyFamily::kDepthAnything3:
      return rename_depth_anything_3(key);
    case KeyFamily::kHuggingFace:
      return rename_hugging_face(key);
    case KeyFamily::kDinoV2:
      return {"pretrained." + key};
    case KeyFamily::kMobileNetV2:
    case KeyFamily::kResNet: {
      const size_t dot = key.rfind('.');
      const auto found = table.find(key.substr(0, dot));
      if (dot == std::string::npos || found == table.end()) return {key};
      return {found->second + key.substr(dot)};
    }
    default:
      return {key};
  }
}

// Joins the parts, whose shapes must be alike.
StoredTensor join(const std::string& name, const std::vector<const StoredTensor*>& parts, const std::string& path) {
  const auto present = [](const StoredTensor* part) { return part != nullptr; };
  const auto count = std::count_if(parts.begin(), parts.end(), present);
  check(count == static_cast<std::ptrdiff_t>(parts.size()), path, ": ", printable(name), ": expected ", parts.size(),
        " tensors to join (query, key and value), found ", count);
  StoredTensor joined = *parts.front();
  joined.name = name;
  for (size_t i = 1; i < parts.size(); ++i) {
    check(!joined.shape.empty() && parts[i]->type == joined.type && parts[i]->shape == parts.front()->shape, path, ": ",
          printable(name), ": expected tensors to join of one shape and type, found ", shape_text(parts[i]->shape), " ",
          parts[i]->type, " beside ", shape_text(parts.front()->shape), " ", joined.type);
    joined.shape[0] += parts[i]->shape[0];
    joined.bytes += parts[i]->bytes;
  }
  return joined;
}

bool is_folded(const KeyMap& map) {
  if (map.family != KeyFamily::kMobileNetV2 && map.family != KeyFamily::kResNet) return false;
  return std::none_of(map.tensors.begin(), map.tensors.end(),
                      [](const MappedTensor& tensor) { return tensor.stored.name.ends_with(".running_mean"); });
}

// These tensors are left over: what classifiers have behind the layers that depth networks use, an auxiliary head, and
// what a run of ours keeps to be resumed.
bool is_left_over(const KeyMap& map, const std::string& name) {
  std::vector<std::string_view> prefixes = {"optimizer."};
  if (map.family == KeyFamily::kMobileNetV2)
    prefixes = {"classifier.", "features.18.", "conv2.", "backbone.conv2.", "head."};
  if (map.family == KeyFamily::kResNet) prefixes = {"fc.", "head."};
  if (map.family == KeyFamily::kUnet) prefixes.push_back("auxiliary_head.");
  return std::any_of(prefixes.begin(), prefixes.end(), [&](std::string_view p) { return name.starts_with(p); });
}

std::vector<int64_t> file_shape(const Shape& shape) {
  std::vector<int64_t> sizes;
  for (int d = 0; d < shape.rank(); ++d) sizes.push_back(shape[d]);
  return sizes;
}

struct Expected {
  std::vector<int64_t> shape;
  bool optional = false, dead = false;
};

// Names and shapes that a file of this kind must have for the network.
std::map<std::string, Expected> expected_tensors(const KeyMap& map, const DepthModel& student) {
  const std::string encoder =
      std::holds_alternative<DepthAnythingConfig>(find_model(map.architecture).config) ? "pretrained." : "backbone.";
  const auto wanted = [&](const std::string& name) { return !map.encoder_only || name.starts_with(encoder); };
  std::map<std::string, Expected> expected;
  for (const StateEntry& entry : student.state()) {
    if (!wanted(entry.name)) continue;
    expected[entry.name] = {file_shape(to_file_shape(entry.tensor->shape(), entry.layout)),
                            entry.name.ends_with("num_batches_tracked"), false};
  }
  for (const DepthModel::DeadParameter& dead : student.dead_parameters()) {
    if (wanted(dead.name)) expected[dead.name] = {file_shape(dead.file_shape), true, true};
  }
  if (!map.folded) return expected;
  // A folded file has a weight and a bias per convolution, and no batch norm.
  std::map<std::string, Expected> folded;
  for (const auto& [name, entry] : encoder_table(map.architecture)) {
    const auto weight = expected.find(entry + ".weight");
    if (weight == expected.end() || weight->second.shape.size() != 4) continue;
    folded[entry + ".weight"] = weight->second;
    folded[entry + ".bias"] = {{weight->second.shape[0]}};
  }
  return folded;
}

}  // namespace

const char* name_of(KeyFamily family) {
  constexpr const char* kNames[] = {"Depth Anything V2",
                                    "Distill-Any-Depth large",
                                    "Depth Anything 3",
                                    "transformers (Hugging Face)",
                                    "DINOv2",
                                    "TIE-KD",
                                    "MobileNetV2 classifier",
                                    "ResNet classifier",
                                    "MiDaS"};
  return kNames[static_cast<size_t>(family)];
}

KeyMap map_keys(const WeightsFile& file) {
  KeyMap map;
  const Keys keys = recognised_keys(file, map);
  infer_architecture(keys, map);
  Table table;
  if (map.family == KeyFamily::kMobileNetV2 || map.family == KeyFamily::kResNet)
    table = encoder_table(map.architecture);

  std::map<std::string, size_t> index;
  for (const StoredTensor& tensor : file.tensors()) {
    const Renamed renamed = rename(map, table, keys.name(tensor));
    const auto [found, added] = index.emplace(renamed.name, map.tensors.size());
    if (added)
      map.tensors.push_back(
          {StoredTensor{renamed.name, {}, {}}, std::vector<const StoredTensor*>(renamed.of, nullptr)});
    auto& parts = map.tensors[found->second].parts;
    check(renamed.of == parts.size() && parts[renamed.part] == nullptr, file.path(), ": expected one tensor for ",
          printable(renamed.name), ", found two");
    parts[renamed.part] = &tensor;
  }
  for (MappedTensor& tensor : map.tensors) tensor.stored = join(tensor.stored.name, tensor.parts, file.path());
  map.folded = is_folded(map);
  return map;
}

ModelOptions options_for(const KeyMap& map) {
  ModelOptions options;
  options.head = default_head(map.architecture);
  options.decoder_widths = map.decoder_widths;
  if (options.head != Head::kDpm || map.encoder_only) return options;
  const auto size = [&](const char* name, size_t dim) {
    for (const auto& [stored, parts] : map.tensors)
      if (stored.name == name && stored.shape.size() > dim) return stored.shape[dim];
    return int64_t{0};
  };
  const int64_t bins = size("decode_head.conv_out.0.weight", 0);
  const bool unused = bins < 2 || bins == kReferenceUnusedBins;
  if (unused && size("decode_head.conv_depth.weight", 0) > 0)
    options.head = size("decode_head.conv_depth.weight", 2) == 1 ? Head::kRelative : Head::kRegression;
  else if (bins >= 2)
    options.bins = bins;
  return options;
}

MappedWeights::MappedWeights(std::unique_ptr<WeightsFile> file)
    : WeightsFile(file->path()), file_(std::move(file)), map_(map_keys(*file_)) {
  metadata_ = file_->metadata();
  std::vector<StoredTensor> tensors;
  for (size_t i = 0; i < map_.tensors.size(); ++i) {
    tensors.push_back(map_.tensors[i].stored);
    tensors.back().handle = i;
  }
  set_tensors(std::move(tensors));
}

void MappedWeights::read_bytes(const StoredTensor& tensor, std::span<std::byte> to) const {
  for (const StoredTensor* part : map_.tensors[tensor.handle].parts) {
    file_->read_bytes(*part, to.first(part->bytes));
    to = to.subspan(part->bytes);
  }
}

std::unique_ptr<MappedWeights> open_mapped_weights(const std::string& path) {
  auto file = std::make_unique<MappedWeights>(open_weights(path));
  const std::string& prefix = file->map().dropped_prefix;
  if (!prefix.empty()) send_message(path, ": dropped the prefix '", printable(prefix), "' of all names");
  return file;
}

KeyCheck check_keys(const KeyMap& map, const DepthModel& student) {
  std::map<std::string, Expected> expected = expected_tensors(map, student);
  KeyCheck result;
  for (const MappedTensor& tensor : map.tensors) {
    const std::string& name = tensor.stored.name;
    const auto found = expected.find(name);
    if (found == expected.end()) {
      if (is_left_over(map, name))
        result.left_over.push_back(name);
      else
        result.unknown.push_back(name + " " + shape_text(tensor.stored.shape));
      continue;
    }
    const Expected& entry = found->second;
    if (entry.dead)
      result.dead.push_back(name);
    else if (tensor.stored.shape == entry.shape)
      result.matched.push_back(name);
    else
      result.mismatched.push_back(
          concat_text(name, ": expected shape ", shape_text(entry.shape), ", found ", shape_text(tensor.stored.shape)));
    expected.erase(found);
  }
  for (const auto& [name, entry] : expected) {
    if (!entry.optional) result.missing.push_back(name + " " + shape_text(entry.shape));
  }
  return result;
}

}  // namespace depthstill
