// depthstill bench-data: how many images of a recipe's training data a second reach a batch in host memory.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "engine/data/batch_planes.h"
#include "engine/data/loader.h"
#include "tools/args.h"
#include "tools/distill_recipe.h"
#include "tools/interrupt.h"
#include "tools/recipe.h"

namespace depthstill {
namespace {

using Clock = std::chrono::steady_clock;

struct BenchDataArgs {
  std::string recipe, data, packed;
  std::vector<std::string> overrides;
  std::vector<int> workers;
  double seconds = 5;
  bool json = false;
  bool allow_outside = false;
};

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// A BatchBuffer holds what is handed to a GPU: whole frames or regions, which crop, colour and normalisation change
// there.
class BatchBuffer {
 public:
  void fill(const Batch& batch) {
    constexpr size_t kAlignment = 64;
    size_t bytes = 0;
    std::set<BatchSource> sources;
    for (const Plane& plane : planes_of(batch, 0, DType::kFloat)) {
      if (!plane.filled || !sources.insert(plane.source).second) continue;
      for (const BatchItem& item : batch.items) {
        const size_t at = bytes;
        bytes += (source_bytes(item, plane.source) + kAlignment - 1) / kAlignment * kAlignment;
        buffer_.resize(std::max(buffer_.size(), bytes));
        write_source(item, plane.source, buffer_.data() + at);
      }
    }
  }

 private:
  std::vector<std::byte> buffer_;
};

struct Rate {
  int workers = 0;
  int64_t images = 0;
  double images_per_s = 0, images_per_cpu_s = 0;
};

Rate measure(const std::shared_ptr<const Dataset>& data, const Recipe& recipe, int workers, double seconds) {
  LoaderOptions loading = loader_options(recipe);
  loading.regions = region_loading(recipe, *data);
  loading.workers = workers;
  if (!loading.regions) {
    loading.epochs = (int64_t{1} << 24) - 1;
  } else if (recipe.train.max_steps > 0) {  // labels end where the run does
    loading.batches = recipe.train.max_steps;
  }
  loading.cache_bytes = 0;
  Loader loader(data, loading);
  const auto next = [&] {
    std::optional<Batch> batch = loader.next();
    if (batch) return *std::move(batch);
    loader = Loader(data, loading);
    return loader.next().value();
  };
  BatchBuffer buffer;
  for (int i = 0; i < loading.prefetch_batches + 1; ++i) buffer.fill(next());  // batches until it flows
  const auto start = Clock::now();
  const double cpu_start = cpu_seconds();
  Rate rate;
  rate.workers = workers;
  while (seconds_since(start) < seconds) {
    throw_if_interrupted();
    const Batch batch = next();
    buffer.fill(batch);
    rate.images += static_cast<int64_t>(batch.items.size());
  }
  rate.images_per_s = static_cast<double>(rate.images) / seconds_since(start);
  rate.images_per_cpu_s = static_cast<double>(rate.images) / (cpu_seconds() - cpu_start);
  return rate;
}

int run_bench_data(const BenchDataArgs& args) {
  std::vector<std::string> overrides = args.overrides;
  if (!args.data.empty()) overrides.push_back("data.root=" + toml_quoted(args.data));
  if (!args.packed.empty()) overrides.push_back("data.train.packed=" + toml_quoted(args.packed));
  Recipe recipe = load_recipe(args.recipe, overrides);
  recipe.data.allow_outside = args.allow_outside;
  const auto data = std::make_shared<const Dataset>(dataset_spec(recipe, "train"));
  const Sample first = data->load(0);
  std::vector<int> workers = args.workers;
  if (workers.empty()) workers = {std::max(recipe.data.workers, 1)};
  const char* const source = data->packed() ? "packed" : "files";
  nlohmann::ordered_json rates = nlohmann::ordered_json::array();
  if (!args.json) {
    std::printf("%s: %lld samples from %s, the first %s%s%s, batches of %d\n", recipe.name.c_str(),
                static_cast<long long>(data->size()), source, concat_text(first.image.size()).c_str(),
                first.depth.empty() ? "" : " with ground truth", first.teacher.empty() ? "" : " with a teacher",
                recipe.train.batch_size);
  }
  for (const int count : workers) {
    const Rate rate = measure(data, recipe, count, args.seconds);
    rates.push_back({{"workers", rate.workers},
                     {"images", rate.images},
                     {"images_per_s", rate.images_per_s},
                     {"images_per_cpu_s", rate.images_per_cpu_s}});
    if (args.json) continue;
    std::printf("%2d workers  %8.1f img/s  %8.1f img per second of CPU time\n", rate.workers, rate.images_per_s,
                rate.images_per_cpu_s);
  }
  if (args.json) {
    const nlohmann::ordered_json result = {{"source", source},
                                           {"samples", data->size()},
                                           {"width", first.image.width},
                                           {"height", first.image.height},
                                           {"bytes_per_sample", first.bytes() - sizeof(Sample)},
                                           {"batch", recipe.train.batch_size},
                                           {"rates", rates}};
    std::printf("%s\n", result.dump(2).c_str());
  }
  return kExitOk;
}

}  // namespace

void add_bench_data_command(CLI::App& app, Run& run) {
  const auto args = std::make_shared<BenchDataArgs>();
  CLI::App* command = app.add_subcommand(
      "bench-data", "Time reading a recipe's training data into batches, as they are handed to a GPU");
  command->add_option("recipe", args->recipe, "TOML recipe")->required();
  command->add_option("--data", args->data, "root of the data set, in place of the recipe's data.root");
  add_allow_outside(*command, args->allow_outside);
  command->add_option("--packed", args->packed, "folder of `depthstill pack`, in place of the recipe's");
  command->add_option("--set", args->overrides, "override a setting of the recipe, KEY=VALUE; may be repeated")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command->add_option("--workers", args->workers, "threads that decode; several numbers are timed in turn")
      ->check(CLI::Range(1, 256));
  command->add_option("--seconds", args->seconds, "of each timing")->check(CLI::PositiveNumber)->capture_default_str();
  command->add_flag("--json", args->json, "print JSON");
  command->callback([args, &run] { run = [args] { return run_bench_data(*args); }; });
}

}  // namespace depthstill
