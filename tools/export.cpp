// depthstill export: a model for other programs, as ONNX or as plain safetensors.
#include "models/onnx/export.h"

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>

#include "models/model_file.h"
#include "tools/args.h"
#include "tools/load_network.h"
#include "tools/recipe.h"
#include "tools/version.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

struct ExportArgs {
  std::string weights, recipe, out, format, size, output = "depth", dtype = "fp32";
  bool normalise = false;
  ExistingArgs existing;
};

// The format comes from --format, else from the file's ending.
bool wants_onnx(const ExportArgs& args) {
  if (!args.format.empty()) return args.format == "onnx";
  const std::string ending = fs::path(args.out).extension().string();
  check_usage(ending == ".onnx" || ending == ".safetensors",
              "export: expected --format onnx or safetensors, or a file with one of these endings, got ", args.out);
  return ending == ".onnx";
}

std::unique_ptr<DepthModel> model_of(const ExportArgs& args) {
  std::unique_ptr<DepthModel> student;
  if (args.recipe.empty()) {
    student = load_network(args.weights);
  } else {
    student = load_network(args.weights, load_recipe(args.recipe));
  }
  student->eval();
  return student;
}

StoredType stored_type(const std::string& dtype) {
  return dtype == "fp16" ? StoredType::kF16 : dtype == "bf16" ? StoredType::kBf16 : StoredType::kF32;
}

OnnxOptions onnx_options(const ExportArgs& args) {
  OnnxOptions options;
  options.output = args.output == "raw" ? OnnxOptions::Output::kRaw : OnnxOptions::Output::kDepth;
  options.normalise = args.normalise;
  if (!args.size.empty()) {
    const SizeArg size = parse_size(args.size);
    options.size = MapSize{size.height, size.width};
  }
  options.version = version();
  return options;
}

int run_export(const ExportArgs& args) {
  const bool onnx = wants_onnx(args);
  check_usage(!onnx || args.dtype == "fp32", "export: --dtype goes with --format safetensors; ONNX files are fp32");
  check_usage(onnx || (args.size.empty() && args.output == "depth" && !args.normalise),
              "export: --size, --head-output and --normalise go with --format onnx");
  const OnnxOptions options = onnx_options(args);
  OutputPlan plan(args.existing.choice());
  plan.reads(args.weights);
  if (!args.recipe.empty()) plan.reads(load_recipe(args.recipe));
  plan.writes(args.out, args.weights);
  plan.approve();
  if (plan.skips(args.out)) {
    std::printf("%s: kept\n", args.out.c_str());
    return kExitOk;
  }
  const std::unique_ptr<DepthModel> student = model_of(args);
  if (onnx) {
    export_onnx(*student, args.out, options);
  } else {
    save_model(args.out, *student, std::nullopt, stored_type(args.dtype));
  }
  std::printf("%s: %s, head %s", args.out.c_str(), student->name().c_str(), name_of(student->options().head));
  if (fs::is_regular_file(args.out)) std::printf(", %.1f MB", static_cast<double>(fs::file_size(args.out)) * 1e-6);
  std::printf("\n");
  return kExitOk;
}

}  // namespace

void add_export_command(CLI::App& app, Run& run) {
  const auto args = std::make_shared<ExportArgs>();
  CLI::App* command = app.add_subcommand("export", "Write a model for other programs, as ONNX or as plain safetensors");
  command->add_option("weights", args->weights, "weights of the model, also a checkpoint of its training")->required();
  command->add_option("--out", args->out, "file to write")->required();
  command->add_option("--format", args->format, "onnx (opset 17) or safetensors [default: by the ending of --out]")
      ->check(CLI::IsMember({"onnx", "safetensors"}));
  command->add_option("--recipe", args->recipe, "recipe of the model [default: what the weights file says]");
  command->add_option("--size", args->size, "onnx: fixed HEIGHTxWIDTH of the image [default: dynamic; dpt_* need it]");
  command
      ->add_option("--head-output", args->output,
                   "onnx: depth (metres, or inverse depth of a relative model) or raw (before the last activation)")
      ->check(CLI::IsMember({"depth", "raw"}))
      ->capture_default_str();
  command->add_flag("--normalise", args->normalise,
                    "onnx: put ImageNet's mean and deviation inside, so that the input is RGB 0..255");
  command->add_option("--dtype", args->dtype, "safetensors: of the stored numbers, fp32, fp16 or bf16")
      ->check(CLI::IsMember({"fp32", "fp16", "bf16"}))
      ->capture_default_str();
  args->existing.add_to(*command, "files");
  command->callback([args, &run] { run = [args] { return run_export(*args); }; });
}

}  // namespace depthstill
