#include "tools/report/run_log.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

using nlohmann::ordered_json;

StepRecord parse_step(const ordered_json& line) {
  StepRecord record;
  record.step = line.at("step").get<int64_t>();
  record.epoch = line.at("epoch").get<int64_t>();
  record.lr = line.at("lr").get<double>();
  record.grad_norm = line.value("grad_norm", 0.0);
  record.images_per_second = line.value("images_per_second", 0.0);
  for (const auto& [name, value] : line.at("losses").items()) record.losses.emplace_back(name, value.get<double>());
  if (line.contains("figures")) {
    for (const auto& [name, value] : line.at("figures").items()) record.figures.emplace_back(name, value.get<double>());
  }
  return record;
}

EvalRecord parse_eval(const ordered_json& line) {
  EvalRecord record;
  record.step = line.at("step").get<int64_t>();
  record.epoch = line.at("epoch").get<int64_t>();
  record.split = line.at("split").get<std::string>();
  record.images = line.at("images").get<int64_t>();
  for (const MetricField& field : kMetricFields) {
    const ordered_json& value = line.at("metrics").at(field.name);
    record.metrics.*field.value = value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
  }
  return record;
}

}  // namespace

std::string to_json_line(const StepRecord& record) {
  ordered_json losses = ordered_json::object();
  for (const auto& [name, value] : record.losses) losses[name] = value;
  ordered_json line = {
      {"type", "step"},  {"step", record.step},           {"epoch", record.epoch},
      {"lr", record.lr}, {"grad_norm", record.grad_norm}, {"images_per_second", record.images_per_second},
      {"losses", losses}};
  for (const auto& [name, value] : record.figures) line["figures"][name] = value;
  return line.dump() + '\n';
}

std::string to_json_line(const EvalRecord& record) {
  ordered_json metrics = ordered_json::object();
  for (const MetricField& field : kMetricFields) metrics[field.name] = record.metrics.*field.value;
  const ordered_json line = {{"type", "eval"},        {"step", record.step},     {"epoch", record.epoch},
                             {"split", record.split}, {"images", record.images}, {"metrics", metrics}};
  return line.dump() + '\n';
}

RunLog read_run_log(const std::string& path) {
  RunLog log;
  const std::string text = read_text(path);
  const std::vector<std::string> lines = split_lines(text);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].empty()) continue;
    try {
      const ordered_json line = ordered_json::parse(lines[i]);
      const std::string type = line.at("type").get<std::string>();
      if (type == "step") {
        StepRecord record = parse_step(line);
        while (!log.steps.empty() && log.steps.back().step >= record.step) log.steps.pop_back();
        log.steps.push_back(std::move(record));
      } else if (type == "eval") {
        EvalRecord record = parse_eval(line);
        std::erase_if(log.evals,
                      [&](const EvalRecord& old) { return old.split == record.split && old.step >= record.step; });
        log.evals.push_back(std::move(record));
      }
    } catch (const nlohmann::json::exception& error) {
      if (i + 1 == lines.size() && !text.ends_with('\n')) break;
      fail(path, ":", i + 1, ": not a line of a run's log: ", error.what());
    }
  }
  return log;
}

}  // namespace depthstill
