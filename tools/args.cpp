#include "tools/args.h"

#include <charconv>

#include "kernels/core/error.h"
#include "kernels/core/library_options.h"
#include "kernels/core/parallel.h"
#include "tools/progress.h"

namespace depthstill {

void ComputeArgs::add_to(CLI::App& command) {
  command.add_option("--device", device, "where to compute: auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command.add_option("--threads", threads, "CPU threads; 0 = one per core")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command.add_option("--precision", precision, "of activations, fp32 or bf16 [default: the recipe's, else fp32]")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  command.add_option("--fp32", fp32, "fp32 products on a GPU: tf32 (tensor cores) or strict [default: tf32]")
      ->check(CLI::IsMember({"tf32", "strict"}));
  command.add_flag("--deterministic", deterministic, "on a GPU: the same bits in every run (the CPU always does)");
}

Device ComputeArgs::choose_device() const {
  if (threads > 0) set_num_threads(threads);
  LibraryOptions& libraries = library_options();
  if (!fp32.empty()) libraries.strict_fp32 = fp32 == "strict";
  if (deterministic) libraries.deterministic = true;
  const Device chosen = parse_device(device);
  if (device == "auto" && chosen == Device::kCpu && built_with_cuda()) {
    log_line(concat_text("no CUDA here (", cuda_unavailable_reason(), "): using the CPU"));
  }
  return chosen;
}

DType ComputeArgs::dtype(const std::string& otherwise) const {
  return (precision.empty() ? otherwise : precision) == "bf16" ? DType::kBf16 : DType::kFloat;
}

void HeadArgs::add_to(CLI::App& command, const std::string& doc) {
  command.add_flag_function(
      "--fused-head,!--stored-logits", [this](int64_t count) { fused = count > 0; }, doc);
}

void ExistingArgs::add_to(CLI::App& command, const std::string& outputs, Existing otherwise) {
  const auto is_default = [&](Existing choice) { return choice == otherwise ? " [default]" : ""; };
  CLI::Option* first = command.add_flag("--overwrite", overwrite,
                                        "write anew " + outputs + " that exist" + is_default(Existing::kOverwrite));
  command
      .add_flag("--skip-existing", skip,
                "keep " + outputs + " that exist, and write the others" + is_default(Existing::kSkip))
      ->excludes(first);
}

Existing ExistingArgs::choice(Existing otherwise) const {
  return overwrite ? Existing::kOverwrite : skip ? Existing::kSkip : otherwise;
}

CLI::Option* add_allow_outside(CLI::App& command, bool& allow_outside) {
  return command.add_flag(
      "--allow-outside", allow_outside,
      "read files outside of the data set's root, where '..', links or absolute paths in its lists lead to");
}

int kitti_top_rows(const std::string& loss, int height) {
  return loss == "tie_kd" || loss == "dpm" || loss == "depth" ? 110 * height / 352 : 0;
}

SizeArg parse_size(const std::string& text) {
  SizeArg size;
  const char* const end = text.data() + text.size();
  const auto [x, height_error] = std::from_chars(text.data(), end, size.height);
  const bool has_x = height_error == std::errc() && x < end && (*x == 'x' || *x == 'X');
  const auto [rest, width_error] = std::from_chars(has_x ? x + 1 : end, end, size.width);
  check_usage(has_x && width_error == std::errc() && rest == end && size.height > 0 && size.width > 0,
              "size: expected HEIGHTxWIDTH such as 352x704, got '", text, "'");
  return size;
}

}  // namespace depthstill
