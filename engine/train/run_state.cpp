#include "engine/train/run_state.h"

#include <utility>

#include "engine/io/safetensors.h"

namespace depthstill {
namespace {

constexpr const char* kOptimizer = "optimizer.";

std::vector<NamedTensor> moments(const Module& module, const AdamW& optimiser) {
  std::vector<NamedTensor> named;
  const auto parameters = module.parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    const StateEntry& parameter = parameters[i];
    named.push_back({concat_text(kOptimizer, "m.", parameter.name), optimiser.first_moments()[i], parameter.layout});
    named.push_back({concat_text(kOptimizer, "v.", parameter.name), optimiser.second_moments()[i], parameter.layout});
  }
  return named;
}

}  // namespace

std::vector<NamedTensor> run_tensors(const Module& module, const AdamW& optimiser) {
  std::vector<NamedTensor> named;
  for (const StateEntry& entry : module.state()) named.push_back({entry.name, *entry.tensor, entry.layout});
  for (NamedTensor& moment : moments(module, optimiser)) named.push_back(std::move(moment));
  return named;
}

void save_run_state(const std::string& path, const Module& module, const AdamW& optimiser, const RunPosition& position,
                    const std::string& fingerprint, const Metadata& extra) {
  Metadata metadata = extra;
  metadata["epoch"] = metadata_text(position.epoch);
  metadata["step"] = metadata_text(position.step);
  metadata["updates"] = metadata_text(position.updates);
  metadata["optimizer_updates"] = metadata_text(optimiser.updates());
  metadata["fingerprint"] = fingerprint;
  save_state(module, path, metadata, moments(module, optimiser));
}

LoadedRun load_run_state(const std::string& path, Module& module, AdamW& optimiser, const std::string& fingerprint,
                         const Metadata& expected) {
  const SafetensorsFile file(path);
  check_metadata(file, expected);
  LoadedRun run;
  run.metadata = file.metadata();
  run.position.epoch = metadata_number<int64_t>(run.metadata, "epoch", path);
  run.position.step = metadata_number<int64_t>(run.metadata, "step", path);
  run.position.updates = metadata_number<int64_t>(run.metadata, "updates", path);
  const auto updates = metadata_number<int64_t>(run.metadata, "optimizer_updates", path);
  const auto found = run.metadata.find("fingerprint");
  const std::string its_fingerprint = found == run.metadata.end() ? "" : found->second;
  check(its_fingerprint == fingerprint, path, ": expected a run with ", fingerprint, ", found ", its_fingerprint,
        "; start anew in another folder, or restore the recipe");

  // Everything is read before anything is changed.
  const auto targets = moments(module, optimiser);
  std::vector<Tensor> values;
  for (const NamedTensor& target : targets) {
    values.push_back(load_tensor(file, target.name, target.value.shape(), target.layout));
  }
  LoadOptions options;
  options.may_ignore = [](const std::string& name) { return name.starts_with(kOptimizer); };
  load_state(module, file, options);
  for (size_t i = 0; i < targets.size(); ++i) copy_(targets[i].value, values[i]);
  optimiser.set_updates(updates);
  return run;
}

}  // namespace depthstill
