// The commands share these parts of the command line. Each command adds its subcommand to the app and, when chosen,
// sets `run`.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <optional>
#include <string>

#include "engine/device.h"
#include "engine/dtype.h"
#include "kernels/core/error.h"
#include "tools/output_plan.h"
#include "tools/toml_document.h"
#include "tools/usage.h"

namespace depthstill {

// Exit codes of the program.
inline constexpr int kExitOk = 0, kExitFailure = 1, kExitUsage = 2;  // kExitInterrupted = 130: tools/interrupt.h

using Run = std::function<int()>;

void add_train_command(CLI::App& app, Run& run);
void add_eval_command(CLI::App& app, Run& run);
void add_predict_command(CLI::App& app, Run& run);
void add_info_command(CLI::App& app, Run& run);
void add_check_data_command(CLI::App& app, Run& run);
void add_synth_command(CLI::App& app, Run& run);
void add_teach_command(CLI::App& app, Run& run);
void add_pack_command(CLI::App& app, Run& run);
void add_sweep_command(CLI::App& app, Run& run);
void add_tables_command(CLI::App& app, Run& run);
void add_loss_command(CLI::App& app, Run& run);
void add_bench_command(CLI::App& app, Run& run);
void add_bench_data_command(CLI::App& app, Run& run);
void add_profile_command(CLI::App& app, Run& run);
void add_convert_command(CLI::App& app, Run& run);
void add_export_command(CLI::App& app, Run& run);

// --device, --threads, --precision, and --fp32 and --deterministic for a GPU's libraries
// (kernels/core/library_options.h).
struct ComputeArgs {
  std::string device = "auto", precision, fp32;  // the latter two: empty if not given
  int threads = 0;
  bool deterministic = false;

  void add_to(CLI::App& command);
  // Applies --threads, --fp32 and --deterministic, and says on stderr, once, why `auto` chose the CPU in a build with
  // CUDA.
  Device choose_device() const;
  DType dtype(const std::string& otherwise = "fp32") const;  // type of --precision, or the one that `otherwise` names
};

// --fused-head and --stored-logits: whether a DPM head's logits are never stored.
struct HeadArgs {
  std::optional<bool> fused;  // no value if neither is given
  void add_to(CLI::App& command, const std::string& doc);
};

// --overwrite and --skip-existing: what becomes of outputs that exist.
struct ExistingArgs {
  bool overwrite = false, skip = false;

  // `outputs` names them for the help text, `otherwise` is what happens without either option.
  void add_to(CLI::App& command, const std::string& outputs, Existing otherwise = Existing::kRefuse);
  Existing choice(Existing otherwise = Existing::kRefuse) const;
};

// --allow-outside of the commands that read a list.
CLI::Option* add_allow_outside(CLI::App& command, bool& allow_outside);

// The rows without loss of the KITTI recipes with this loss, 110 of 352 or none, for maps of another height.
int kitti_top_rows(const std::string& loss, int height);

// "352x704": height, then width.
struct SizeArg {
  int height = 0, width = 0;
};
SizeArg parse_size(const std::string& text);

}  // namespace depthstill
