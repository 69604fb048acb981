// depthstill tables: evaluates systems as a paper's tables do, and sets its figures beside ours.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <system_error>

#include "engine/eval/metrics.h"
#include "engine/eval/metrics_csv.h"
#include "engine/io/atomic_file.h"
#include "engine/io/text_file.h"
#include "engine/io/weights_file.h"
#include "tools/args.h"
#include "tools/eval.h"
#include "tools/interrupt.h"
#include "tools/paper_tables.h"
#include "tools/progress.h"
#include "tools/report/chart.h"
#include "tools/report/report.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;

struct TablesArgs {
  std::string tables, systems, out, report;
  ExistingArgs existing;
  int threads = 0;
};

// What the user has: the arguments of `eval` for the data of each evaluation, and per system what is evaluated.
struct Systems {
  std::map<std::string, std::vector<std::string>> data;
  std::map<std::string, std::map<std::string, std::string>> sources;  // system, source -> predictions or weights
  std::map<std::string, std::vector<std::string>> arguments;          // more of a system
};

Systems read_systems(const std::string& path, const PaperTables& tables) {
  Systems systems;
  std::set<std::string> sources, names;
  for (const auto& [name, evaluation] : tables.evaluations) sources.insert(evaluation.source);
  for (const PaperTable& table : tables.tables) {
    for (const TableRow& row : table.rows) names.insert(row.system);
  }
  for (const TomlEntry& entry : parse_toml(read_text(path), path)) {
    if (std::holds_alternative<std::monostate>(entry.value)) continue;
    if (entry.key.starts_with("data.")) {
      const std::string name = entry.key.substr(5);
      check(tables.evaluations.contains(name), entry.where, ": '", entry.key, "': expected the data of an evaluation (",
            list_text(tables.evaluations, [](const auto& each) { return each.first; }), ")");
      systems.data[name] = texts_of(entry);
      continue;
    }
    const size_t dot = entry.key.rfind('.');
    constexpr std::string_view kPrefix = "systems.";
    check(entry.key.starts_with(kPrefix) && dot >= kPrefix.size(), entry.where, ": '", entry.key,
          "': expected [data] or [systems.NAME]");
    const std::string name = entry.key.substr(kPrefix.size(), dot - kPrefix.size()), key = entry.key.substr(dot + 1);
    check(names.contains(name), entry.where, ": '", name, "': expected a system of the tables, which has no such row");
    if (key == "arguments") {
      systems.arguments[name] = texts_of(entry);
      continue;
    }
    const auto* source = std::get_if<std::string>(&entry.value);
    check(sources.contains(key) && source != nullptr, entry.where, ": '", entry.key,
          "': expected arguments, or predictions or weights for ",
          list_text(
              sources, [](const std::string& each) { return each; }, " or "));
    systems.sources[name][key] = *source;
  }
  return systems;
}

// Items by what they belong to, in the order of their first ones.
using Grouped = std::vector<std::pair<std::string, std::string>>;

void add_item(const std::string& owner, const std::string& item, const char* separator, Grouped& groups) {
  const auto found = std::find_if(groups.begin(), groups.end(), [&](const auto& each) { return each.first == owner; });
  if (found == groups.end()) {
    groups.emplace_back(owner, item);
  } else {
    found->second += separator + item;
  }
}

// One evaluation of one system.
struct Task {
  std::string system, evaluation, file;  // file: without extension
  std::vector<std::string> arguments;
  std::string name() const { return system + ", " + evaluation; }
};

std::string file_name(const std::string& text) {
  std::string name;
  for (const char c : text) {
    const bool is_plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                          std::string_view("._+-=,").find(c) != std::string_view::npos;
    name += is_plain ? c : '_';
  }
  return name;
}

class Tables {
 public:
  explicit Tables(const TablesArgs& args)
      : args_(args),
        tables_(read_paper_tables(args.tables)),
        systems_(read_systems(args.systems, tables_)),
        plan_(args.existing.choice(), args.out) {
    for (const PaperTable& table : tables_.tables) {
      for (const TableRow& row : table.rows) {
        for (size_t c = 0; c < table.columns.size(); ++c) {
          if (!std::isnan(row.paper[c])) add(row.system, table.columns[c].evaluation);
        }
      }
    }
  }

  int run() {
    check_folder();
    plan_outputs();
    if (!args_.report.empty()) report_with("");  // what is no report is refused before anything is evaluated
    make_folder(args_.out);
    for (const Task& task : tasks_) {
      std::error_code ignored;
      if (!plan_.skips(json_of(task)) || !fs::exists(csv_of(task), ignored)) continue;
      kept_.insert(task.file);
      collect(task);
    }
    write_tables();  // whoever finds the folder knows whose it is
    for (size_t i = 0; i < tasks_.size(); ++i) {
      throw_if_interrupted();
      const Task& task = tasks_[i];
      log_line(
          concat_text("evaluation ", i + 1, " of ", tasks_.size(), ": ", task.name(), is_kept(task) ? " (kept)" : ""));
      if (is_kept(task)) continue;
      evaluate_task(task);
      write_tables();
    }
    if (!args_.report.empty()) write_file(args_.report, report_with(html()));
    std::printf("%s", tables_text(tables_, ours_, notes()).c_str());
    std::fflush(stdout);
    check(failed_.empty(), failed_.size(), " of ", tasks_.size(),
          " evaluations failed, the first: ", failed_.empty() ? "" : failed_.front());
    return kExitOk;
  }

 private:
  // Where ours come from, and what is not there.
  std::vector<TableNotes> notes() const {
    Grouped systems;
    for (const Task& task : tasks_) {
      const auto result = protocols_.find(task.file);
      if (result != protocols_.end()) add_item(result->second, task.system, "; ", systems);
    }
    TableNotes evaluated{"evaluations", {}}, missing{"missing in " + args_.systems, missing_data_};
    for (const auto& [protocol, of] : systems) evaluated.lines.push_back(concat_text(protocol, "; for ", of));
    for (const auto& [system, sources] : missing_sources_) {
      missing.lines.push_back(concat_text(system, ": predictions or weights for ", sources));
    }
    return {evaluated, {"failed", failed_}, missing};
  }
  std::string html() const {
    std::string html = tables_html(tables_, ours_, notes());
    for (const Task& task : tasks_) {
      if (!protocols_.contains(task.file)) continue;
      const std::string worst = worst_images(read_metrics_csv(csv_of(task)).images, "abs_rel");
      html += "<details><summary>Worst images of " + escape_html(task.name()) + "</summary>" + worst + "</details>";
    }
    return html;
  }
  std::string report_with(const std::string& html) const { return with_section(args_.report, tables_.paper, html); }
  void write_tables() const {
    write_file(out("tables.txt"), tables_text(tables_, ours_, notes()));
    write_file(out("tables.csv"), tables_csv(tables_, ours_));
    write_file(out("tables.html"),
               report_page(tables_.paper, "figures of ours, of the paper, and their difference", html()));
  }
  std::string out(const std::string& name) const { return (fs::path(args_.out) / name).string(); }
  std::string json_of(const Task& task) const { return out(task.file + ".json"); }
  bool is_kept(const Task& task) const { return kept_.contains(task.file); }
  std::string csv_of(const Task& task) const { return out(task.file + ".csv"); }

  // Plans the evaluation of a system once, or notes what it lacks.
  void add(const std::string& system, const std::string& name) {
    if (!seen_.emplace(system, name).second) return;
    const TableEvaluation& evaluation = tables_.evaluations.at(name);
    const auto data = systems_.data.find(name);
    const bool has_data = data != systems_.data.end();
    if (!has_data && seen_.emplace("", name).second) {
      missing_data_.push_back("data." + name + ", where the data of the evaluation are");
    }
    const auto sources = systems_.sources.find(system);
    const bool has = sources != systems_.sources.end() && sources->second.contains(evaluation.source);
    if (!has && seen_.emplace(system, '.' + evaluation.source).second) {
      add_item(system, evaluation.source, ", ", missing_sources_);
    }
    if (!has_data || !has) return;
    const std::string& source = sources->second.at(evaluation.source);
    Task task{system, name, file_name(system + '.' + name), evaluation.arguments};
    const auto append = [&](const std::vector<std::string>& more) {
      task.arguments.insert(task.arguments.end(), more.begin(), more.end());
    };
    append(data->second);
    append({names_weights(source) ? "--weights" : "--pred", source});
    if (const auto more = systems_.arguments.find(system); more != systems_.arguments.end()) append(more->second);
    append({"--json", json_of(task), "--csv", csv_of(task)});
    if (args_.threads > 0) append({"--threads", std::to_string(args_.threads)});
    tasks_.push_back(std::move(task));
  }

  // The tables of an earlier call are replaced, nothing else is.
  void check_folder() const {
    std::error_code ignored;
    const bool is_empty = !fs::is_directory(args_.out, ignored) || fs::is_empty(args_.out, ignored);
    const std::string table = out("tables.csv");
    check_usage(is_empty || (fs::exists(table, ignored) && read_text(table).starts_with(kTablesCsvHead)), args_.out,
                ": expected an empty folder or that of tables, found something else; give another --out");
  }

  void plan_outputs() {
    plan_.reads(args_.tables);
    plan_.reads(args_.systems);
    for (const Task& task : tasks_) {
      plan_.writes(json_of(task), task.name());
      plan_.replaces(csv_of(task), task.name());
    }
    for (const char* name : {"tables.txt", "tables.csv", "tables.html"}) plan_.replaces(out(name), name);
    plan_.replaces(args_.report, "--report");
    plan_.approve();
  }

  void evaluate_task(const Task& task) {
    try {
      evaluate_quietly(task.arguments);
    } catch (const Error& error) {
      failed_.push_back(task.name() + ": " + error.what());
      log_line("failed: " + failed_.back());
      return;
    }
    collect(task);
  }

  void collect(const Task& task) {
    nlohmann::json json;
    try {
      json = nlohmann::json::parse(read_text(json_of(task)));
    } catch (const nlohmann::json::exception&) {
    }
    check(json.is_object() && json["images"].is_number_integer() && json["protocol"].is_string(), json_of(task),
          ": expected a result of eval --json, found something else; give --overwrite");
    for (const MetricField& field : kMetricFields) {
      if (json.contains(field.name) && json[field.name].is_number()) {
        ours_[{task.system, task.evaluation + ' ' + field.name}] = json[field.name].get<double>();
      }
    }
    protocols_[task.file] = concat_text(task.evaluation, ", ", json["images"].get<int64_t>(),
                                        " images: ", json["protocol"].get<std::string>());
  }

  const TablesArgs& args_;
  PaperTables tables_;
  Systems systems_;
  OutputPlan plan_;
  std::vector<Task> tasks_;
  std::set<std::pair<std::string, std::string>> seen_;
  std::vector<std::string> missing_data_, failed_;
  Grouped missing_sources_;                       // by system
  std::set<std::string> kept_;                    // files of tasks that an earlier call did
  std::map<std::string, std::string> protocols_;  // of what was evaluated, by a task's file
  TableFigures ours_;
};

}  // namespace

void add_tables_command(CLI::App& app, Run& run) {
  const auto args = std::make_shared<TablesArgs>();
  CLI::App* command = app.add_subcommand("tables", "Evaluate systems as a paper's tables do; its figures beside ours");
  command->add_option("tables", args->tables, "TOML file of a paper's tables, as in tools/tables")->required();
  command
      ->add_option("--systems", args->systems,
                   "TOML file that says where the data of each evaluation are, and the predictions or weights of each "
                   "system; what it lacks is named")
      ->required();
  command
      ->add_option("--out", args->out,
                   "folder for tables.txt, tables.csv, tables.html and the result of each evaluation")
      ->required();
  command->add_option(
      "--report", args->report,
      "report.html of a training run, which gets the tables as its last section, in place of an earlier "
      "one of the same paper");
  args->existing.add_to(*command, "results of evaluations");
  command->add_option("--threads", args->threads, "CPU threads; 0 = one per core")->check(CLI::Range(0, 1024));
  command->callback([args, &run] { run = [args] { return Tables(*args).run(); }; });
}

}  // namespace depthstill
