#include "models/model_file.h"

#include <algorithm>
#include <set>
#include <sstream>
#include <utility>

#include "engine/io/text_file.h"
#include "kernels/preprocess.h"
#include "models/checkpoint_keys.h"
#include "models/imagenet.h"
#include "models/model_table.h"

namespace depthstill {
namespace {

constexpr const char* kWidths = "decoder_widths";
constexpr size_t kMaxTaps = 16;

// Lets a file of this network hold what the network has no use for.
LoadOptions passing_over(const DepthModel& model) {
  const auto dead = model.dead_parameter_names();
  LoadOptions options;
  options.may_ignore = [names = std::set<std::string>(dead.begin(), dead.end())](const std::string& name) {
    return names.contains(name) || name.starts_with("optimizer.");  // the file of a run serves as well
  };
  return options;
}

Metadata describe(const std::string& architecture, const ModelOptions& options) {
  const auto& mean = kImageMean;
  const auto& deviation = kImageStd;
  Metadata metadata = {
      {"format", "depthstill-1"},
      {"architecture", architecture},
      {"head", name_of(options.head)},
      {"bins", metadata_text(options.bins)},
      {"d_min", metadata_text(options.d_min)},
      {"d_max", metadata_text(options.d_max)},
      {"normalisation", concat_text("RGB 0..255: mean ", mean[0], ' ', mean[1], ' ', mean[2], ", deviation ",
                                    deviation[0], ' ', deviation[1], ' ', deviation[2])}};
  if (!options.decoder_widths.empty()) {
    std::ostringstream widths;
    for (const int64_t width : options.decoder_widths) widths << (widths.tellp() > 0 ? " " : "") << width;
    metadata[kWidths] = widths.str();
  }
  return metadata;
}

std::vector<int64_t> parse_widths(const Metadata& metadata, const std::string& path) {
  std::vector<int64_t> widths;
  const auto found = metadata.find(kWidths);
  if (found == metadata.end()) return widths;
  std::istringstream in(found->second);
  int64_t width = 0;
  while (in >> width) widths.push_back(width);
  check(in.eof() && !widths.empty() && widths.size() <= kMaxTaps, path, ": metadata entry '", kWidths,
        "': expected at most ", kMaxTaps, " numbers, found '", printable(found->second), "'");
  return widths;
}

// An encoder serves every network that has this encoder.
bool serves(const KeyMap& map, const DepthModel& model, bool encoder_only) {
  if (same_weights(map.architecture, model.name())) return true;
  const auto* config = std::get_if<UnetConfig>(&find_model(map.architecture).config);
  const auto* wanted = std::get_if<UnetConfig>(&find_model(model.name()).config);
  return encoder_only && config != nullptr && wanted != nullptr && config->encoder.same_weights(wanted->encoder);
}

TrainedUse parse_use(const Metadata& metadata, const std::string& path) {
  TrainedUse use;
  use.flip = metadata_number<int>(metadata, "flip", path) != 0;
  const auto entry = [&](const char* key) {
    const auto found = metadata.find(key);
    return found == metadata.end() ? std::string() : found->second;
  };
  const std::string precision = entry("precision"), size = entry("input_size"), scale = entry("input_scale");
  check(precision == name_of(DType::kFloat) || precision == name_of(DType::kBf16), path,
        ": metadata entry 'precision': expected fp32 or bf16, found '", printable(precision), "'");
  use.dtype = precision == name_of(DType::kBf16) ? DType::kBf16 : DType::kFloat;
  char by = 0;
  if (!size.empty()) {
    ImageSize sides;
    std::istringstream in(size);
    const bool read = in >> sides.width >> by >> sides.height && by == 'x' && in.peek() == EOF;
    check(read && std::min(sides.width, sides.height) >= 1 && std::max(sides.width, sides.height) <= kMaxImageSide,
          path, ": metadata entry 'input_size': expected WIDTHxHEIGHT, found '", printable(size), "'");
    use.input_size = sides;
  }
  if (metadata.contains("input_side")) {
    use.side = metadata_number<int>(metadata, "input_side", path);
    check(use.side >= 1 && use.side <= kMaxImageSide, path, ": metadata entry 'input_side': expected 1 to ",
          kMaxImageSide, ", found ", use.side);
  }
  if (!scale.empty()) {
    std::istringstream in(scale);
    const bool read = in >> use.scale_height >> by >> use.scale_width && by == 'x' && in.peek() == EOF;
    check(read && use.scale_height > 0 && use.scale_width > 0, path,
          ": metadata entry 'input_scale': expected HEIGHTxWIDTH, found '", printable(scale), "'");
  }
  return use;
}

}  // namespace

Metadata describe(const DepthModel& model) { return describe(model.name(), model.options()); }

Metadata metadata_of(const DepthModel& model) {
  Metadata metadata = describe(model);
  if (!model.trained_use()) return metadata;
  const TrainedUse& use = *model.trained_use();
  metadata["flip"] = use.flip ? "1" : "0";
  metadata["precision"] = name_of(use.dtype);
  if (use.input_size)
    metadata["input_size"] = concat_text(*use.input_size);
  else if (use.side > 0)
    metadata["input_side"] = metadata_text(use.side);
  else if (use.resizes())
    metadata["input_scale"] = metadata_text(use.scale_height) + "x" + metadata_text(use.scale_width);
  return metadata;
}

std::optional<NetworkRecord> record_of(const WeightsFile& file) {
  const Metadata& metadata = file.metadata();
  const std::string& path = file.path();
  if (!metadata.contains("architecture") || !metadata.contains("head")) return {};
  NetworkRecord record{metadata.at("architecture"), {}, {}};
  record.options.head = parse_head(metadata.at("head"));
  record.options.bins = metadata_number<int64_t>(metadata, "bins", path);
  record.options.d_min = metadata_number<float>(metadata, "d_min", path);
  record.options.d_max = metadata_number<float>(metadata, "d_max", path);
  record.options.decoder_widths = parse_widths(metadata, path);
  if (metadata.contains("flip")) record.use = parse_use(metadata, path);
  return record;
}

void save_model(const std::string& path, const DepthModel& model, std::optional<int64_t> epoch, StoredType floats) {
  Metadata metadata = metadata_of(model);
  if (epoch) metadata["epoch"] = metadata_text(*epoch);
  save_state(model, path, metadata, {}, floats);
}

std::unique_ptr<DepthModel> load_model(const std::string& path, const std::function<NetworkRecord()>& otherwise) {
  const auto file = open_mapped_weights(path);
  std::optional<NetworkRecord> record = record_of(*file);
  if (otherwise && !(record && record->use)) {
    const NetworkRecord other = otherwise();
    const bool same = record ? other.architecture == record->architecture
                             : same_weights(other.architecture, file->map().architecture);
    if (same && record) check_metadata(*file, describe(other.architecture, other.options));
    if (same) record = other;
  }
  if (!record) {
    const std::string& architecture = file->map().architecture;
    check(!file->map().encoder_only, path, ": expected a whole network, found an encoder for ", architecture, " only");
    record = {architecture, options_for(file->map()), {}};
  }
  auto model = make_model(record->architecture, record->options);
  if (record_of(*file)) check_metadata(*file, describe(*model));
  load_state(*model, *file, passing_over(*model));
  model->set_trained_use(record->use);
  return model;
}

void load_weights(DepthModel& model, const std::string& path) {
  const auto file = open_mapped_weights(path);
  const std::optional<NetworkRecord> record = record_of(*file);
  if (record) check_metadata(*file, describe(model));
  load_state(model, *file, passing_over(model));
  if (record && record->use) model.set_trained_use(record->use);
}

std::unique_ptr<DinoV2> load_dinov2(std::string_view name, const std::string& path) {
  const auto* config = std::get_if<DepthAnythingConfig>(&find_model(name).config);
  check(config != nullptr, name, ": expected a network with a DINOv2 encoder");
  const auto file = open_mapped_weights(path);
  check(file->map().architecture == name, path, ": expected the DINOv2 encoder of ", name, ", found weights for ",
        file->map().architecture);
  LoadOptions options;
  options.prefix = "pretrained.";
  options.may_ignore = [prefix = options.prefix](const std::string& stored) {
    return !stored.starts_with(prefix) || stored == prefix + "mask_token";
  };
  auto encoder = std::make_unique<DinoV2>(config->encoder);
  load_state(*encoder, *file, options);
  return encoder;
}

InitialWeights load_initial(DepthModel& model, const std::string& path, InitialParts parts) {
  const auto file = open_mapped_weights(path);
  const KeyMap& map = file->map();
  check(serves(map, model, map.encoder_only || parts == InitialParts::kEncoder), path, ": expected weights for ",
        model.name(), ", found those of ", map.architecture);
  if (!map.encoder_only && parts == InitialParts::kEncoder) {
    const std::string prefix = model.parts().encoder;
    LoadOptions options;
    options.wanted = [&](const std::string& name) { return name.starts_with(prefix); };
    const std::vector<std::string> dead = model.dead_parameter_names();
    options.may_ignore = [&](const std::string& name) {
      return !name.starts_with(prefix) || std::ranges::count(dead, name) > 0;
    };
    load_state(model, *file, options);
    return {false, concat_text("encoder: ", path)};
  }
  if (!map.encoder_only) {
    // Another head's or range's weights are a fine start where names and shapes agree: metric from relative.
    load_state(model, *file, passing_over(model));
    return {false, concat_text("network: ", path)};
  }
  if (Encoder* encoder = model.imagenet_encoder()) {
    const bool folded = load_imagenet(*encoder, *file).folded;
    return {folded, concat_text("encoder: ", path, folded ? " (batch norms folded: re-expanded)" : "")};
  }
  LoadOptions options = passing_over(model);
  options.allow_missing = true;
  const LoadReport report = load_state(model, *file, options);
  for (const std::string& name : report.missing) {
    check(!name.starts_with("pretrained."), path, ": expected ", name, ", found no such tensor");
  }
  return {false, concat_text("encoder: ", path)};
}

}  // namespace depthstill
