#include "tools/sweep_run.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <set>
#include <system_error>
#include <variant>

#include "engine/io/atomic_file.h"
#include "engine/io/csv_cell.h"
#include "engine/io/text_file.h"
#include "tools/interrupt.h"
#include "tools/output_plan.h"
#include "tools/progress.h"
#include "tools/report/run_log.h"
#include "tools/toml_document.h"
#include "tools/usage.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

constexpr const char *kTable = "sweep.csv", *kFirstColumns = "run,state";

struct Axis {
  std::string key;
  std::vector<std::string> values;  // as TOML
};

TomlValue value_of(const TomlScalar& scalar) {
  return std::visit([](const auto& value) { return TomlValue(value); }, scalar);
}

// TOML values with commas between them; where that is no TOML, words.
std::vector<std::string> values_of(const std::string& list) {
  std::vector<std::string> values;
  try {
    for (const TomlEntry& entry : parse_toml("list = [" + list + "]", "--over")) {
      for (const TomlScalar& scalar : std::get<TomlArray>(entry.value)) values.push_back(format_toml(value_of(scalar)));
    }
    return values;
  } catch (const Error&) {
    values.clear();
  }
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    values.push_back(toml_quoted(list.substr(begin, end - begin)));
    begin = end + 1;
  }
  return values;
}

Axis axis_of(const std::string& text) {
  const size_t equals = text.find('=');
  check_usage(equals != std::string::npos && equals > 0, "sweep: expected --over KEY=LIST, got '", text, "'");
  Axis axis{text.substr(0, equals), {}};
  std::string list = text.substr(equals + 1);
  if (list.starts_with('[') && list.ends_with(']')) list = list.substr(1, list.size() - 2);
  axis.values = values_of(list);
  check_usage(!axis.values.empty() && axis.values.front() != "\"\"", "sweep: expected values for ", axis.key,
              ", got none");
  return axis;
}

// What a name of a folder may hold on any system.
std::string plain(const std::string& text) {
  std::string result;
  for (const char c : text) {
    const bool is_plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                          std::string_view("._+-").find(c) != std::string_view::npos;
    if (c != '"') result += is_plain ? c : '_';
  }
  return result;
}

std::string run_name(const std::vector<std::pair<std::string, std::string>>& values) {
  std::string name;
  for (const auto& [key, value] : values) name += (name.empty() ? "" : ",") + plain(key) + '=' + plain(value);
  return name;
}

// The epoch that the run has kept: the first of the best.
std::optional<EvalRecord> kept_epoch(const Recipe& recipe, const RunLog& log) {
  const MetricField& field = metric_field(recipe.select.metric);
  std::optional<EvalRecord> best;
  for (const EvalRecord& record : log.evals) {
    if (record.split != recipe.select.on) continue;
    const double value = record.metrics.*field.value;
    const double before = best ? best->metrics.*field.value : 0;
    if (!best || (field.lower_is_better ? value < before : value > before)) best = record;
  }
  return best;
}

// Whether the file says the same settings; an earlier version may have described them in other words.
bool is_recipe(const std::string& path, const Recipe& recipe) {
  try {
    return print_recipe(load_recipe(path)) == print_recipe(recipe);
  } catch (const Error&) {
    return false;
  }
}

class Sweep {
 public:
  explicit Sweep(const SweepOptions& options) : options_(options), runs_(plan_sweep(options)), failed_(runs_.size()) {}

  void run(const std::function<void(const std::string&)>& print) {
    check_folder();
    make_folder(options_.out);
    write_table();
    for (size_t i = 0; i < runs_.size(); ++i) {
      if (is_done(i)) continue;
      throw_if_interrupted();
      train_run(i);
      write_table();
    }
    print(table_text());
    const auto failed =
        std::find_if(failed_.begin(), failed_.end(), [](const std::string& why) { return !why.empty(); });
    if (failed == failed_.end()) return;
    fail(std::count_if(failed_.begin(), failed_.end(), [](const std::string& why) { return !why.empty(); }), " of ",
         runs_.size(), " runs failed, the first: ", folder(static_cast<size_t>(failed - failed_.begin())), ": ",
         *failed);
  }

 private:
  std::string folder(size_t i) const { return (fs::path(options_.out) / runs_[i].name).string(); }
  std::string file(size_t i, const char* name) const { return (fs::path(folder(i)) / name).string(); }
  std::string table_path() const { return (fs::path(options_.out) / kTable).string(); }
  bool has(size_t i, const char* name) const {
    std::error_code ignored;
    return fs::exists(file(i, name), ignored);
  }
  bool is_done(size_t i) const { return has(i, "report.html"); }  // a run writes it last

  // Refuses what is not this sweep's before anything is written.
  void check_folder() const {
    std::error_code ignored;
    const bool has_table = fs::exists(table_path(), ignored);
    const bool is_empty = !fs::is_directory(options_.out, ignored) || fs::is_empty(options_.out, ignored);
    check_usage(is_empty || (has_table && read_text(table_path()).starts_with(kFirstColumns)), options_.out,
                ": expected an empty folder or that of a sweep, found something else; give another --out");
    OutputPlan plan(Existing::kOverwrite, options_.out);
    for (const SweepRun& run : runs_) plan.reads(run.recipe);
    plan.writes(table_path(), kTable);
    plan.approve();
    for (size_t i = 0; i < runs_.size(); ++i) {
      if (!has(i, "recipe.toml")) continue;
      check_usage(is_recipe(file(i, "recipe.toml"), runs_[i].recipe), file(i, "recipe.toml"),
                  ": expected the recipe of this sweep, found another; give another --out");
    }
  }

  void train_run(size_t i) {
    const bool resumes = has(i, "last.safetensors");
    log_line(concat_text("run ", i + 1, " of ", runs_.size(), resumes ? ", resumed: " : ": ", runs_[i].name));
    TrainOptions training = options_.training;
    training.out = folder(i);
    training.resume = resumes;
    training.dtype = runs_[i].recipe.train.precision == "bf16" ? DType::kBf16 : DType::kFloat;
    try {
      train(runs_[i].recipe, training);
    } catch (const Error& error) {
      failed_[i] = error.what();
      log_line(concat_text("run ", i + 1, " failed: ", error.what()));
    }
  }

  std::optional<EvalRecord> result(size_t i) const {
    if (!is_done(i)) return std::nullopt;
    return kept_epoch(runs_[i].recipe, read_run_log(file(i, "metrics.jsonl")));
  }

  void write_table() const {
    std::string text = kFirstColumns;
    for (const auto& [key, value] : runs_.front().values) text += ',' + key;
    text += ",epoch,step";
    for (const MetricField& field : kMetricFields) text += std::string(",") + field.name;
    text += '\n';
    for (size_t i = 0; i < runs_.size(); ++i) {
      const std::optional<EvalRecord> record = result(i);
      text += '"' + runs_[i].name + "\"," + (record ? "done" : failed_[i].empty() ? "waiting" : "failed");
      for (const auto& [key, value] : runs_[i].values) text += ',' + csv_cell(value);
      text += record ? concat_text(',', record->epoch + 1, ',', record->step) : ",,";
      for (const MetricField& field : kMetricFields) {
        char cell[40] = "";
        if (record) std::snprintf(cell, sizeof cell, "%.9g", record->metrics.*field.value);
        text += std::string(",") + cell;
      }
      text += '\n';
    }
    write_file(table_path(), text);
  }

  // The runs in order with their metrics, the best one by select.metric marked.
  std::string table_text() const {
    std::string text;
    size_t width = 3;
    for (const SweepRun& run : runs_) width = std::max(width, run.name.size());
    const auto padded = [&](const std::string& name) { return name + std::string(width - name.size(), ' '); };
    const MetricField& select = metric_field(runs_.front().recipe.select.metric);
    std::optional<double> best;
    for (size_t i = 0; i < runs_.size(); ++i) {
      const std::optional<EvalRecord> record = result(i);
      if (!record) continue;
      const double value = record->metrics.*select.value;
      if (!best || (select.lower_is_better ? value < *best : value > *best)) best = value;
    }
    text += padded("run") + " epoch" + header_of(kMetricFields) + '\n';
    for (size_t i = 0; i < runs_.size(); ++i) {
      const std::optional<EvalRecord> record = result(i);
      text += padded(runs_[i].name);
      if (!record) {
        text += failed_[i].empty() ? "  waiting\n" : "  failed\n";
        continue;
      }
      char epoch[32];
      std::snprintf(epoch, sizeof epoch, "%6d", static_cast<int>(record->epoch + 1));
      text += epoch + format_values(record->metrics);
      text += record->metrics.*select.value == *best ? concat_text("  best ", select.name, '\n') : "\n";
    }
    return text + "table: " + table_path() + '\n';
  }

  static std::string header_of(std::span<const MetricField> fields) {
    std::string text;
    for (const MetricField& field : fields) {
      char cell[32];
      std::snprintf(cell, sizeof cell, "%10s", field.name);
      text += cell;
    }
    return text;
  }

  const SweepOptions& options_;
  std::vector<SweepRun> runs_;
  std::vector<std::string> failed_;  // why a run of this call failed; empty: it did not
};

}  // namespace

std::vector<SweepRun> plan_sweep(const SweepOptions& options) {
  check_usage(!options.over.empty(), "sweep: expected --over KEY=LIST, got none");
  std::vector<Axis> axes;
  std::set<std::string> keys;
  size_t count = 1;
  for (const std::string& text : options.over) {
    axes.push_back(axis_of(text));
    check_usage(keys.insert(axes.back().key).second, "sweep: expected --over ", axes.back().key, " once, got it twice");
    count *= axes.back().values.size();
  }
  std::vector<SweepRun> runs;
  std::set<std::string> names;
  for (size_t i = 0; i < count; ++i) {
    SweepRun run;
    std::vector<std::string> overrides = options.overrides;
    size_t left = count, at = i;
    for (const Axis& axis : axes) {
      left /= axis.values.size();
      const std::string& value = axis.values[at / left];
      at %= left;
      run.values.emplace_back(axis.key, value);
      overrides.push_back(axis.key + '=' + value);
    }
    run.recipe = load_recipe(options.recipe, overrides);
    run.recipe.data.allow_outside = options.allow_outside;
    run.name = run_name(run.values);
    check_usage(names.insert(run.name).second, "sweep: expected runs of different names, got two of ", run.name);
    const std::string& on = run.recipe.select.on;
    check_usage(has_split(run.recipe, on), options.recipe, ": expected data.", on,
                ".list, by which a run's epoch is chosen and runs are compared, found none");
    runs.push_back(std::move(run));
  }
  return runs;
}

void run_sweep(const SweepOptions& options, const std::function<void(const std::string&)>& print) {
  Sweep(options).run(print);
}

}  // namespace depthstill
