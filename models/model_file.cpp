#include "models/model_file.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <set>
#include <sstream>

#include "engine/checkpoint.h"
#include "engine/io/safetensors.h"
#include "models/checkpoint_keys.h"
#include "models/imagenet.h"

namespace depthstill {
namespace {

constexpr const char* kFirstMoment = "optimizer.m.";
constexpr const char* kSecondMoment = "optimizer.v.";

template <class T>
std::string text_of(T value) {
  std::ostringstream out;
  out.precision(std::numeric_limits<double>::max_digits10);
  out << value;
  return out.str();
}

template <class T>
T number(const Metadata& metadata, const std::string& key, const std::string& path) {
  const auto found = metadata.find(key);
  check(found != metadata.end(), path, ": expected the metadata entry '", key, "', found none");
  std::istringstream in(found->second);
  T value{};
  check(static_cast<bool>(in >> value), path, ": metadata entry '", key, "': expected a number, found '", found->second,
        "'");
  return value;
}

// Metadata that both sides have must agree: a checkpoint of another network is refused by name, not by a shape.
void check_same_model(const DepthModel& student, const WeightsFile& file) {
  for (const auto& [key, value] : describe(student)) {
    const auto found = file.metadata().find(key);
    check(found == file.metadata().end() || found->second == value, file.path(), ": expected a checkpoint with ", key,
          " ", value, ", found ", found == file.metadata().end() ? "" : found->second);
  }
}

LoadOptions passing_over(const DepthModel& student) {
  const auto dead = student.dead_parameter_names();
  LoadOptions options;
  options.may_ignore = [names = std::set<std::string>(dead.begin(), dead.end())](const std::string& name) {
    return names.contains(name) || name.starts_with("optimizer.");
  };
  return options;
}

std::vector<NamedTensor> moments(const DepthModel& student, const AdamW& optimiser) {
  std::vector<NamedTensor> named;
  const auto parameters = student.parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    named.push_back({kFirstMoment + parameters[i].name, optimiser.first_moments()[i], parameters[i].layout});
    named.push_back({kSecondMoment + parameters[i].name, optimiser.second_moments()[i], parameters[i].layout});
  }
  return named;
}

}  // namespace

Metadata describe(const DepthModel& student) {
  const ModelOptions& options = student.options();
  return {{"format", "depthstill-1"},      {"architecture", student.name()},  {"head", name_of(options.head)},
          {"bins", text_of(options.bins)}, {"d_min", text_of(options.d_min)}, {"d_max", text_of(options.d_max)}};
}

void save_run_state(const std::string& path, const DepthModel& student, const AdamW& optimiser, const RunState& state) {
  Metadata metadata = describe(student);
  metadata["epoch"] = text_of(state.epoch);
  metadata["step"] = text_of(state.step);
  metadata["updates"] = text_of(state.updates);
  metadata["optimizer_updates"] = text_of(optimiser.updates());
  metadata["unjudged_epoch"] = text_of(state.unjudged_epoch);
  metadata["best_epoch"] = text_of(state.best_epoch);
  metadata["best_value"] = text_of(state.best_value);
  metadata["fingerprint"] = state.fingerprint;
  if (state.fused_head) metadata["fused_head"] = text_of(*state.fused_head);
  save_state(student, path, metadata, moments(student, optimiser));
}

RunState load_run_state(const std::string& path, DepthModel& student, AdamW& optimiser,
                        const std::string& fingerprint) {
  const SafetensorsFile file(path);
  check_same_model(student, file);
  RunState state;
  state.epoch = number<int64_t>(file.metadata(), "epoch", path);
  state.step = number<int64_t>(file.metadata(), "step", path);
  state.updates = number<int64_t>(file.metadata(), "updates", path);
  state.unjudged_epoch = number<int64_t>(file.metadata(), "unjudged_epoch", path);
  state.best_epoch = number<int64_t>(file.metadata(), "best_epoch", path);
  state.best_value = number<double>(file.metadata(), "best_value", path);
  if (file.metadata().contains("fused_head")) state.fused_head = number<bool>(file.metadata(), "fused_head", path);
  const auto updates = number<int64_t>(file.metadata(), "optimizer_updates", path);
  const auto found = file.metadata().find("fingerprint");
  state.fingerprint = found == file.metadata().end() ? "" : found->second;
  check(state.fingerprint == fingerprint, path, ": expected a run with ", fingerprint, ", found ", state.fingerprint,
        "; start anew in another folder, or restore the recipe");

  // Everything is read before anything is changed.
  const auto targets = moments(student, optimiser);
  std::vector<Tensor> values;
  for (const NamedTensor& target : targets) {
    values.push_back(load_tensor(file, target.name, target.value.shape(), target.layout));
  }
  load_state(student, file, passing_over(student));
  for (size_t i = 0; i < targets.size(); ++i) copy_(targets[i].value, values[i]);
  optimiser.set_updates(updates);
  return state;
}

void save_model(const std::string& path, const DepthModel& student, std::optional<int64_t> epoch, StoredType floats) {
  Metadata metadata = describe(student);
  if (epoch) metadata["epoch"] = text_of(*epoch);
  save_state(student, path, metadata, {}, floats);
}

std::unique_ptr<DepthModel> load_model(const std::string& path) {
  const auto file = open_mapped_weights(path);
  const Metadata& metadata = file->metadata();
  std::string architecture = file->map().architecture;
  ModelOptions options;
  if (metadata.contains("architecture") && metadata.contains("head")) {
    architecture = metadata.at("architecture");
    options.head = parse_head(metadata.at("head"));
    options.bins = number<int64_t>(metadata, "bins", path);
    options.d_min = number<float>(metadata, "d_min", path);
    options.d_max = number<float>(metadata, "d_max", path);
  } else {
    check(!file->map().encoder_only, path, ": expected a whole network, found an encoder for ", architecture, " only");
    options = options_for(file->map());
  }
  auto student = make_model(architecture, options);
  load_state(*student, *file, passing_over(*student));
  return student;
}

void load_weights(DepthModel& student, const std::string& path) {
  const auto file = open_mapped_weights(path);
  check_same_model(student, *file);
  load_state(student, *file, passing_over(student));
}

InitialWeights load_initial(DepthModel& student, const std::string& path) {
  const auto file = open_mapped_weights(path);
  const KeyMap& map = file->map();
  check(map.architecture == student.name(), path, ": expected weights for ", student.name(), ", found those of ",
        map.architecture);
  if (!map.encoder_only) {
    // Another head's or range's weights are a fine start where names and shapes agree: metric from relative.
    load_state(student, *file, passing_over(student));
    return {false, concat_text("network: ", path)};
  }
  if (Encoder* encoder = student.imagenet_encoder()) {
    const bool folded = load_imagenet(*encoder, path).folded;
    return {folded, concat_text("encoder: ", path, folded ? " (batch norms folded: re-expanded)" : "")};
  }
  LoadOptions options = passing_over(student);
  options.allow_missing = true;
  const LoadReport report = load_state(student, *file, options);
  for (const std::string& name : report.missing) {
    check(!name.starts_with("pretrained."), path, ": expected ", name, ", found no such tensor");
  }
  return {false, concat_text("encoder: ", path)};
}

}  // namespace depthstill
