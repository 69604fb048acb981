// depthstill bench: times training steps or predictions of a student, or single kernels, on random data.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "engine/allocator.h"
#include "engine/random_data.h"
#include "engine/train/step.h"
#include "kernels/core/parallel.h"
#include "losses/distill_any_depth.h"
#include "losses/tie_kd.h"
#include "models/captured_forward.h"
#include "models/model_table.h"
#include "tools/args.h"
#include "tools/bench/bench_kernels.h"
#include "tools/bench/machine_peak.h"
#include "tools/interrupt.h"
#include "tools/progress.h"

namespace depthstill {
namespace {

using Clock = std::chrono::steady_clock;

struct BenchArgs {
  std::vector<std::string> whats;  // "train-step" or "infer", or kernels
  std::string what, model = "mobilenet_unet", size, loss, head_name, shape;
  int batch = 1, steps = 10, warmup = 2, top_rows = -1;
  bool json = false, dead_rows = true, no_graph = false;
  HeadArgs head;
  ComputeArgs compute;
};

struct Parts {
  double forward = 0, loss = 0, backward = 0, update = 0;  // ms
  double graph = 0;                                        // ms, of a step that is one CUDA graph
  double total() const { return forward + loss + backward + update + graph; }
};

double milliseconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

class Bench {
 public:
  explicit Bench(const BenchArgs& args) : args_(args), device_(args.compute.choose_device()) {
    ModelOptions options;
    options.head = args.head_name.empty() ? default_head(args.model) : parse_head(args.head_name);
    model_ = make_model(args.model, options);
    model_->initialize(1);
    const InputRule& rule = model_->input_rule();
    if (args.size.empty())
      size_ = rule.fit == InputRule::Fit::kPad ? SizeArg{352, 704} : SizeArg{rule.size, rule.size};
    else
      size_ = parse_size(args.size);
    model_->to(device_);
    views_.resize(1);
    views_[0].image = random_values({args.batch, size_.height, size_.width, 3}, args.compute.dtype(), device_);
    if (args.what == "infer")
      prepare_inference();
    else
      prepare_training();
  }

  Parts step() { return args_.what == "infer" ? infer() : train(); }
  Device device() const { return device_; }
  bool captured() const { return (step_ && step_->captured()) || (forward_ && forward_->captured()); }
  std::string size_text() const { return concat_text(size_.height, 'x', size_.width); }
  bool fused_head() const {
    if (objective_) {
      const Metadata choices = objective_->choices();
      return choices.contains("fused_head") && choices.at("fused_head") == "1";
    }
    return model_->options().head == Head::kDpm && args_.head.fused.value_or(true) &&
           dpm_head_supported(device_, args_.compute.dtype(), model_->dpm_head().weight.size(3), model_->bins());
  }

 private:
  DpmHeadWay head() const { return args_.head.fused.value_or(true) ? DpmHeadWay::kFused : DpmHeadWay::kStored; }
  bool as_graph() const { return device_ == Device::kCuda && !args_.no_graph; }

  void prepare_inference() {
    model_->eval();
    if (!as_graph()) return;
    forward_.emplace(*model_,
                     CapturedForward::Options{.device = device_, .graph = true, .head = head(), .note = log_line});
  }

  std::unique_ptr<Objective> make_objective() {
    const char* const usual = model_->options().head == Head::kDpm ? "tie_kd" : "l1";
    const std::string loss = args_.loss.empty() ? usual : args_.loss;
    if (loss == kDistillAnyDepthLoss) return std::make_unique<DistillAnyDepth>(*model_, DistillOptions{});
    TieKdOptions options;
    options.loss = named_loss(loss);
    options.loss.top_rows = args_.top_rows >= 0 ? args_.top_rows : kitti_top_rows(loss, size_.height);
    options.dead_rows = args_.dead_rows;
    options.fused_head = args_.head.fused;
    return std::make_unique<TieKd>(*model_, options);
  }

  void prepare_training() {
    views_[0].teacher = random_teacher({args_.batch, size_.height, size_.width}, model_->options().d_max, device_);
    views_[0].truth = views_[0].teacher;
    objective_ = make_objective();
    TrainStep::Options stepping{.device = device_, .graph = as_graph(), .note = log_line};
    if (!as_graph()) stepping.after = [this](TrainStep::Phase phase) { end(phase); };
    step_ = std::make_unique<TrainStep>(*objective_, std::move(stepping));
  }

  Clock::time_point now() const {
    synchronize(device_);
    return Clock::now();
  }

  Parts infer() {
    const NoGrad no_grad;
    const auto start = now();
    if (forward_) {
      (*forward_)(views_[0].image);
      return {.graph = milliseconds(start, now())};
    }
    const Prediction output = model_->forward(views_[0].image);
    const auto forwarded = now();
    static_cast<void>(depth_of(output, head()));
    const auto end = now();
    return {milliseconds(start, forwarded), milliseconds(forwarded, end), 0, 0};
  }

  Parts train() {
    parts_ = {};
    phase_start_ = now();
    const auto start = phase_start_;
    step_->run(views_);
    if (parts_.total() == 0) parts_.graph = milliseconds(start, now());  // nothing ran on its own
    check(step_->optimiser().last_step().dropped == 0, "bench: the gradient is not finite");
    return parts_;
  }

  void end(TrainStep::Phase phase) {
    const auto start = std::exchange(phase_start_, now());
    const double ms = milliseconds(start, phase_start_);
    switch (phase) {
      case TrainStep::Phase::kForward:
        parts_.forward = ms;
        break;
      case TrainStep::Phase::kLoss:
        parts_.loss = ms;
        break;
      case TrainStep::Phase::kBackward:
        parts_.backward = ms;
        break;
      case TrainStep::Phase::kUpdate:
        parts_.update = ms;
        break;
    }
  }

  const BenchArgs& args_;
  Device device_;
  SizeArg size_;
  std::unique_ptr<DepthModel> model_;
  BatchViews views_;
  std::unique_ptr<Objective> objective_;
  std::unique_ptr<TrainStep> step_;
  std::optional<CapturedForward> forward_;
  Parts parts_;  // parts of the present step
  Clock::time_point phase_start_;
};

// The peak is that of the whole process on the CPU, oneDNN's own memory and the weights included, and that of device
// memory on CUDA.
size_t peak_bytes(Device device) {
  if (device == Device::kCuda) return memory_stats(device).peak;
  // Linux starts ru_maxrss with the memory of the process that called exec; VmHWM is this program's own.
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6)) * 1024;
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<size_t>(usage.ru_maxrss) * 1024;
}

Parts mean_of(const std::vector<Parts>& steps) {
  Parts mean;
  const auto n = static_cast<double>(steps.size());
  for (const Parts& step : steps) {
    mean.forward += step.forward / n;
    mean.loss += step.loss / n;
    mean.backward += step.backward / n;
    mean.update += step.update / n;
    mean.graph += step.graph / n;
  }
  return mean;
}

nlohmann::ordered_json result_json(const BenchArgs& args, const Bench& bench, const std::vector<Parts>& steps) {
  std::vector<double> times;
  for (const Parts& step : steps) times.push_back(step.total());
  std::sort(times.begin(), times.end());
  const size_t middle = times.size() / 2;
  const Parts mean = mean_of(steps);
  const MemoryStats memory = memory_stats(bench.device());
  return {{"median_ms", times.size() % 2 ? times[middle] : (times[middle - 1] + times[middle]) / 2},
          {"min_ms", times.front()},
          {"max_ms", times.back()},
          {"peak_bytes", peak_bytes(bench.device())},
          {"steps", times.size()},
          {"tensor_peak_bytes", memory.peak},
          {"reserved_bytes", memory.reserved},
          {"system_allocations", memory.system_allocations},
          {"parts_ms", mean.graph > 0 ? nlohmann::ordered_json{{"graph", mean.graph}}
                                      : nlohmann::ordered_json{{"forward", mean.forward},
                                                               {"loss", mean.loss},
                                                               {"backward", mean.backward},
                                                               {"update", mean.update}}},
          {"what", args.what},
          {"model", args.model},
          {"size", bench.size_text()},
          {"batch", args.batch},
          {"precision", name_of(args.compute.dtype())},
          {"device", name_of(bench.device())},
          {"threads", num_threads()},
          {"captured", bench.captured()},
          {"dead_rows", args.dead_rows},
          {"fused_head", bench.fused_head()}};
}

void print_kernels(const std::vector<KernelTime>& times, const MachinePeak& peak) {
  std::printf("%-18s %-9s %-22s %10s %10s %9s %8s %6s %9s %6s\n", "kernel", "pass", "shape", "median ms", "min ms",
              "MB", "GB/s", "%copy", "GFLOP/s", "%peak");
  for (const KernelTime& t : times) {
    const double seconds = 1e-3 * t.median_ms;
    std::printf("%-18s %-9s %-22s %10.4f %10.4f %9.2f %8.1f %6.1f", t.kernel.c_str(), t.pass.c_str(), t.shape.c_str(),
                t.median_ms, t.min_ms, 1e-6 * t.work.bytes, 1e-9 * t.work.bytes / seconds,
                100.0 * t.work.bytes / seconds / peak.copy_bytes_per_s);
    if (t.work.flops > 0) {
      std::printf(" %9.1f %6.1f", 1e-9 * t.work.flops / seconds, 100.0 * t.work.flops / seconds / peak.flops_per_s);
    }
    std::printf("\n");
  }
}

nlohmann::ordered_json kernels_json(const std::vector<KernelTime>& times, const MachinePeak& peak) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const KernelTime& t : times) {
    const double seconds = 1e-3 * t.median_ms;
    list.push_back({{"kernel", t.kernel},
                    {"pass", t.pass},
                    {"shape", t.shape},
                    {"median_ms", t.median_ms},
                    {"min_ms", t.min_ms},
                    {"bytes", t.work.bytes},
                    {"bytes_per_s", t.work.bytes / seconds},
                    {"percent_of_copy", 100.0 * t.work.bytes / seconds / peak.copy_bytes_per_s},
                    {"flops", t.work.flops},
                    {"flops_per_s", t.work.flops / seconds},
                    {"percent_of_peak", 100.0 * t.work.flops / seconds / peak.flops_per_s}});
  }
  return list;
}

int run_kernels(const BenchArgs& args) {
  const KernelBenchOptions options{
      args.compute.choose_device(), args.compute.dtype(), args.batch, args.shape, args.steps, args.warmup};
  check_usage(args.shape.empty() || args.whats.size() == 1, "--shape: expected one kernel, got ", args.whats.size());
  const MachinePeak peak = measure_peak(options.device, options.dtype);
  std::vector<KernelTime> times;
  for (const std::string& kernel : args.whats) {
    for (KernelTime& time : bench_kernel(kernel, options)) times.push_back(std::move(time));
  }
  if (args.json) {
    const nlohmann::ordered_json json{
        {"device", name_of(options.device)},    {"threads", num_threads()},
        {"precision", name_of(options.dtype)},  {"copy_bytes_per_s", peak.copy_bytes_per_s},
        {"peak_flops_per_s", peak.flops_per_s}, {"kernels", kernels_json(times, peak)}};
    std::printf("%s\n", json.dump(2).c_str());
    return kExitOk;
  }
  std::printf("%s on %s, %d threads: %s\n", name_of(options.dtype), name_of(options.device), num_threads(),
              peak_text(peak, options.dtype).c_str());
  print_kernels(times, peak);
  return kExitOk;
}

int run_bench(const BenchArgs& args) {
  Bench bench(args);
  std::vector<Parts> steps;
  const int warmup = bench.device() == Device::kCuda ? std::max(args.warmup, 4) : args.warmup;
  for (int i = -warmup; i < args.steps; ++i) {
    throw_if_interrupted();
    const Parts parts = bench.step();
    if (i >= 0) steps.push_back(parts);
    if (i == -1 && bench.device() == Device::kCuda) reset_peak_memory(bench.device());  // of choosing among ways
  }
  const nlohmann::ordered_json result = result_json(args, bench, steps);
  if (args.json) {
    std::printf("%s\n", result.dump(2).c_str());
    return kExitOk;
  }
  const Parts mean = mean_of(steps);
  std::printf("%s %s %s batch %d %s on %s, %d threads%s\n", args.what.c_str(), args.model.c_str(),
              bench.size_text().c_str(), args.batch, name_of(args.compute.dtype()), name_of(bench.device()),
              num_threads(), bench.fused_head() ? ", fused head" : "");
  std::printf("median %.1f ms, min %.1f, max %.1f over %zu; peak memory %s (tensors %s)\n",
              result["median_ms"].get<double>(), result["min_ms"].get<double>(), result["max_ms"].get<double>(),
              steps.size(), format_bytes(result["peak_bytes"].get<double>()).c_str(),
              format_bytes(result["tensor_peak_bytes"].get<double>()).c_str());
  if (mean.graph > 0) return kExitOk;  // one graph: its parts cannot be told apart
  std::printf("mean: forward %.1f ms, loss %.1f, backward %.1f, update %.1f\n", mean.forward, mean.loss, mean.backward,
              mean.update);
  return kExitOk;
}

}  // namespace

void add_bench_command(CLI::App& app, Run& run) {
  const auto args = std::make_shared<BenchArgs>();
  CLI::App* command = app.add_subcommand("bench", "Time training steps, predictions or single kernels on random data");
  std::vector<std::string> whats = bench_kernel_names();
  whats.insert(whats.begin(), {"train-step", "infer"});
  command->add_option("what", args->whats, "train-step, infer, or one or more kernels")
      ->required()
      ->check(CLI::IsMember(whats));
  command->add_option("--shape", args->shape, "of one kernel [default: shapes of the students]");
  command->footer("Shapes of the kernels:\n" + shape_help());
  command->add_option("--model", args->model, "student")->check(CLI::IsMember(model_names()))->capture_default_str();
  command->add_option("--head", args->head_name, "dpm, regression or relative [default: the published model's]")
      ->check(CLI::IsMember({"dpm", "regression", "relative"}));
  command->add_option("--size", args->size,
                      "HEIGHTxWIDTH in pixels [default: 352x704, or the square that the network is fed]");
  command->add_option("--batch", args->batch, "images per step")->check(CLI::PositiveNumber)->capture_default_str();
  std::vector<std::string> losses = loss_names();
  losses.emplace_back(kDistillAnyDepthLoss);
  command->add_option("--loss", args->loss, "of train-step [default: tie_kd with the dpm head, else l1]")
      ->check(CLI::IsMember(losses));
  command->add_option(
      "--top-rows", args->top_rows,
      "rows without loss [default: the KITTI recipes' share of the height, 110 of 352, for tie_kd, dpm and depth]");
  command->add_flag(
      "--dead-rows,!--all-rows", args->dead_rows,
      "leave out decoder rows that cannot reach the loss: the same result (default); --all-rows computes them");
  args->head.add_to(
      *command, "never store the logits of a DPM head, or store them [default: infer never does, train-step as train]");
  command->add_flag("--no-graph", args->no_graph,
                    "on CUDA, launch every kernel anew instead of replaying the step as a graph; times its parts");
  command->add_option("--steps", args->steps, "that are timed")->check(CLI::PositiveNumber)->capture_default_str();
  command->add_option("--warmup", args->warmup, "steps before those; on CUDA at least 4, to capture the graph")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_flag("--json", args->json, "print JSON");
  args->compute.add_to(*command);
  command->callback([args, &run] {
    run = [args] {
      const auto is_network = [](const std::string& what) { return what == "train-step" || what == "infer"; };
      if (std::none_of(args->whats.begin(), args->whats.end(), is_network)) return run_kernels(*args);
      check_usage(args->whats.size() == 1, "bench: expected train-step or infer alone, or kernels");
      args->what = args->whats[0];
      return run_bench(*args);
    };
  });
}

}  // namespace depthstill
