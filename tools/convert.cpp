// depthstill convert: published checkpoints under our names, as safetensors.
#include <cstdio>
#include <optional>
#include <span>

#include "engine/io/safetensors.h"
#include "models/checkpoint_keys.h"
#include "models/model_file.h"
#include "models/model_table.h"
#include "tools/args.h"

namespace depthstill {
namespace {

struct ConvertArgs {
  std::string in, out, model, dtype = "fp32", head;
  std::optional<float> d_min, d_max;
  ExistingArgs existing;
};

struct Totals {
  size_t tensors = 0;
  int64_t elements = 0;
};

Totals totals_of(const WeightsFile& file, std::span<const std::string> names) {
  Totals totals;
  for (const std::string& name : names) {
    ++totals.tensors;
    totals.elements += file.at(name).numel();
  }
  return totals;
}

void print_row(const char* label, const Totals& totals) {
  std::printf("%-12s %6zu tensors %14lld elements\n", label, totals.tensors, static_cast<long long>(totals.elements));
}

void print_names(const char* label, std::span<const std::string> names) {
  for (const std::string& name : names) std::printf("  %-11s %s\n", label, name.c_str());
}

void print_table(const MappedWeights& file, const KeyCheck& keys) {
  print_row("mapped", totals_of(file, keys.matched));
  print_row("unused", totals_of(file, keys.dead));
  print_names("unused", keys.dead);
  print_row("left over", totals_of(file, keys.left_over));
  print_names("left over", keys.left_over);
  std::printf("%-12s %6zu\n%-12s %6zu\n%-12s %6zu\n", "missing", keys.missing.size(), "other shape",
              keys.mismatched.size(), "unknown", keys.unknown.size());
  print_names("missing", keys.missing);
  print_names("other shape", keys.mismatched);
  print_names("unknown", keys.unknown);
}

StoredType parse_type(const std::string& text) {
  return text == "fp16" ? StoredType::kF16 : text == "bf16" ? StoredType::kBf16 : StoredType::kF32;
}

// A tensor's bytes in the type it is stored as. Floats all pass through read_floats(), which refuses NaN and infinity.
class Converter {
 public:
  explicit Converter(const WeightsFile& file) : file_(file) {}

  std::span<const std::byte> operator()(const TensorToStore& to) {
    const StoredTensor& tensor = file_.at(to.name);
    const auto count = static_cast<size_t>(tensor.numel());
    bytes_.resize(count * size_of(to.type));
    if (!is_floating(tensor.type)) {
      file_.read_bytes(tensor, bytes_);
      return bytes_;
    }
    floats_.resize(count);
    file_.read_floats(tensor, floats_);
    if (to.type == StoredType::kF32) return std::as_bytes(std::span(floats_));
    narrow_floats(floats_, to.type, bytes_.data(), concat_text(file_.path(), ": tensor '", to.name, "'"));
    return bytes_;
  }

 private:
  const WeightsFile& file_;
  std::vector<std::byte> bytes_;
  std::vector<float> floats_;
};

void write(const ConvertArgs& args, const WeightsFile& file, const std::vector<std::string>& names,
           const std::map<std::string, std::string>& metadata) {
  std::vector<TensorToStore> tensors;
  for (const std::string& name : names) {
    const StoredTensor& tensor = file.at(name);
    tensors.push_back({name, is_floating(tensor.type) ? parse_type(args.dtype) : tensor.type, tensor.shape});
  }
  Converter convert(file);
  write_safetensors(args.out, tensors, metadata, [&](size_t i) { return convert(tensors[i]); });
}

int run_convert(const ConvertArgs& args) {
  OutputPlan plan(args.existing.choice());
  plan.reads(args.in);
  plan.writes(args.out, args.in);
  plan.approve();
  if (plan.skips(args.out)) {
    std::printf("%s: kept\n", args.out.c_str());
    return kExitOk;
  }
  const auto file = open_mapped_weights(args.in);
  const std::optional<NetworkRecord> record = record_of(*file);  // our own weights keep what they say
  KeyMap map = file->map();
  if (record) map.architecture = record->architecture;
  if (!args.model.empty()) map.architecture = args.model;
  ModelOptions options = record ? record->options : options_for(map);
  if (!args.head.empty()) options.head = parse_head(args.head);
  options.d_min = args.d_min.value_or(options.d_min);
  options.d_max = args.d_max.value_or(options.d_max);
  const auto student = make_model(map.architecture, options);
  if (record) student->set_trained_use(record->use);
  const KeyCheck keys = check_keys(map, *student);

  std::printf("%s: names of %s: %s%s\n", args.in.c_str(), name_of(map.family), map.architecture.c_str(),
              !map.encoder_only ? ""
              : map.folded      ? ", encoder only, batch norms folded"
                                : ", encoder only");
  print_table(*file, keys);
  check(keys.loads(), args.in, ": does not fit ", map.architecture, ": ", keys.missing.size(), " missing, ",
        keys.mismatched.size(), " of another shape, ", keys.unknown.size(), " unknown; first: ",
        !keys.mismatched.empty() ? keys.mismatched.front()
        : !keys.missing.empty()  ? "missing " + keys.missing.front()
                                 : "unknown " + (keys.unknown.empty() ? "" : keys.unknown.front()));
  std::vector<std::string> names = keys.matched;
  names.insert(names.end(), keys.dead.begin(), keys.dead.end());
  const auto metadata =
      map.encoder_only ? std::map<std::string, std::string>{{"format", "depthstill-1"}, {"encoder", map.architecture}}
                       : metadata_of(*student);
  write(args, *file, names, metadata);
  std::printf("wrote %s\n", args.out.c_str());
  return kExitOk;
}

}  // namespace

void add_convert_command(CLI::App& app, Run& run) {
  auto args = std::make_shared<ConvertArgs>();
  CLI::App* command = app.add_subcommand(
      "convert", "Writes a published checkpoint (.pth, .pt, .safetensors) as safetensors under depthstill's names");
  command->add_option("in", args->in, "checkpoint; weights/README.md lists those that are known")->required();
  command->add_option("out", args->out, "safetensors file to write")->required();
  command->add_option(
      "--model", args->model,
      "network it must fit; da3metric_* have to be named, as their files are those of da3mono_* [default: inferred "
      "from names and shapes]");
  command->add_option("--dtype", args->dtype, "element type to store: fp32, fp16 or bf16")
      ->check(CLI::IsMember({"fp32", "fp16", "bf16"}))
      ->capture_default_str();
  command
      ->add_option("--head", args->head,
                   "dpm, regression or relative; regression for metric models, whose names "
                   "are those of relative ones [default: inferred]")
      ->check(CLI::IsMember({"dpm", "regression", "relative"}));
  command->add_option("--d-min", args->d_min, "nearest depth of the head, metres [default: the weights', else 0.001]");
  command->add_option(
      "--d-max", args->d_max,
      "farthest depth of the head, metres; metric models: 20 indoor, 80 outdoor [default: the weights', else 80]");
  args->existing.add_to(*command, "files");
  command->callback([args, &run] { run = [args] { return run_convert(*args); }; });
}

}  // namespace depthstill
