#include "models/model_file.h"

#include <set>
#include <utility>

#include "models/checkpoint_keys.h"
#include "models/imagenet.h"
#include "models/model_table.h"

namespace depthstill {
namespace {

// Lets a file of this network hold what the network has no use for.
LoadOptions passing_over(const DepthModel& model) {
  const auto dead = model.dead_parameter_names();
  LoadOptions options;
  options.may_ignore = [names = std::set<std::string>(dead.begin(), dead.end())](const std::string& name) {
    return names.contains(name) || name.starts_with("optimizer.");  // the file of a run serves as well
  };
  return options;
}

}  // namespace

Metadata describe(const DepthModel& model) {
  const ModelOptions& options = model.options();
  return {{"format", "depthstill-1"},
          {"architecture", model.name()},
          {"head", name_of(options.head)},
          {"bins", metadata_text(options.bins)},
          {"d_min", metadata_text(options.d_min)},
          {"d_max", metadata_text(options.d_max)}};
}

void save_model(const std::string& path, const DepthModel& model, std::optional<int64_t> epoch, StoredType floats) {
  Metadata metadata = describe(model);
  if (epoch) metadata["epoch"] = metadata_text(*epoch);
  save_state(model, path, metadata, {}, floats);
}

std::unique_ptr<DepthModel> load_model(const std::string& path) {
  const auto file = open_mapped_weights(path);
  const Metadata& metadata = file->metadata();
  std::string architecture = file->map().architecture;
  ModelOptions options;
  if (metadata.contains("architecture") && metadata.contains("head")) {
    architecture = metadata.at("architecture");
    options.head = parse_head(metadata.at("head"));
    options.bins = metadata_number<int64_t>(metadata, "bins", path);
    options.d_min = metadata_number<float>(metadata, "d_min", path);
    options.d_max = metadata_number<float>(metadata, "d_max", path);
  } else {
    check(!file->map().encoder_only, path, ": expected a whole network, found an encoder for ", architecture, " only");
    options = options_for(file->map());
  }
  auto model = make_model(architecture, options);
  load_state(*model, *file, passing_over(*model));
  return model;
}

void load_weights(DepthModel& model, const std::string& path) {
  const auto file = open_mapped_weights(path);
  check_metadata(*file, describe(model));
  load_state(model, *file, passing_over(model));
}

InitialWeights load_initial(DepthModel& model, const std::string& path) {
  const auto file = open_mapped_weights(path);
  const KeyMap& map = file->map();
  check(map.architecture == model.name(), path, ": expected weights for ", model.name(), ", found those of ",
        map.architecture);
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
