#include "tools/bench/op_table.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>
#include <string_view>

namespace depthstill {
namespace {

using nlohmann::ordered_json;

// "fwd/decode_head.conv_out.0" is a layer's forward pass, "bwd/loss/dpm" a loss's backward pass.
std::pair<std::string, bool> layer_of(std::string_view range) {
  const bool backward = range.starts_with("bwd/");
  if (backward || range.starts_with("fwd/")) range.remove_prefix(4);
  return {std::string(range), backward};
}

constexpr const char* kParts[] = {"input", "teacher", "features", "student", "losses", "update"};

// The part that a layer of an OpRow belongs to.
std::string part_of(std::string_view layer) {
  if (layer.substr(0, layer.find('/')) == "loss") return "losses";
  for (const char* part : {"input", "teacher", "features", "update"}) {
    if (layer.substr(0, layer.find('/')) == part) return part;
  }
  return "student";
}

double rate(double amount, double ms) { return ms > 0 ? amount / (1e-3 * ms) : 0.0; }

double share(double part, double whole) { return whole > 0 ? 100.0 * part / whole : 0.0; }

// A row and its bounds, or several rows and theirs, added up.
struct Line {
  OpRow row;
  StepBound forward, backward;
  StepBound bound() const {
    return {forward.products_ms + backward.products_ms, forward.memory_ms + backward.memory_ms};
  }
};

StepBound bound_of(const Work& work, const MachinePeak& peak) {
  const double ms = peak.bound_ms(work);
  return peak.bound_by_products(work) ? StepBound{ms, 0.0} : StepBound{0.0, ms};
}

std::vector<Line> lines_of(const std::vector<OpRow>& rows, const MachinePeak& peak) {
  std::vector<Line> lines;
  for (const OpRow& row : rows) {
    lines.push_back({row, bound_of(row.forward.work, peak), bound_of(row.backward.work, peak)});
  }
  return lines;
}

void add(Line& to, const Line& from) {
  const auto add_time = [](OpTime& sum, const OpTime& time) {
    sum.ms += time.ms;
    sum.work.flops += time.work.flops;
    sum.work.bytes += time.work.bytes;
    sum.calls += time.calls;
  };
  const auto add_bound = [](StepBound& sum, const StepBound& bound) {
    sum.products_ms += bound.products_ms;
    sum.memory_ms += bound.memory_ms;
  };
  add_time(to.row.forward, from.row.forward);
  add_time(to.row.backward, from.row.backward);
  add_bound(to.forward, from.forward);
  add_bound(to.backward, from.backward);
}

Line sum_of(const std::vector<Line>& lines, size_t begin = 0) {
  Line sum;
  for (size_t i = begin; i < lines.size(); ++i) add(sum, lines[i]);
  return sum;
}

void sort_by_bound(std::vector<Line>& lines) {
  std::stable_sort(lines.begin(), lines.end(),
                   [](const Line& a, const Line& b) { return a.bound().ms() > b.bound().ms(); });
}

// Adds up all layers, what products bound and what memory bounds apart.
std::vector<Line> lines_by_op(const std::vector<Line>& lines) {
  std::map<std::pair<std::string, bool>, Line> sums;
  for (const Line& line : lines) {
    Line forward = line, backward = line;
    forward.row.backward = backward.row.forward = {};
    forward.backward = backward.forward = {};
    for (const Line& part : {forward, backward}) {
      if (part.row.forward.calls + part.row.backward.calls == 0) continue;
      Line& sum = sums[{line.row.op, part.bound().products_ms > 0}];
      sum.row.op = line.row.op;
      add(sum, part);
    }
  }
  std::vector<Line> result;
  for (const auto& [key, line] : sums) result.push_back(line);
  sort_by_bound(result);
  return result;
}

std::string fixed(double value, int decimals) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", decimals, value);
  return text;
}

// Text is padded to `width`, on the right where that is negative.
struct Column {
  std::string head;
  int width;
  std::function<std::string(const Line&)> text;
};

void append_line(std::string& out, const std::vector<Column>& columns,
                 const std::function<std::string(const Column&)>& text) {
  const char* separator = "";
  for (const Column& column : columns) {
    const std::string cell = text(column);
    const size_t width = static_cast<size_t>(std::abs(column.width));
    const std::string padding(width - std::min(width, cell.size()), ' ');
    out += separator + (column.width < 0 ? cell + padding : padding + cell);
    separator = " ";
  }
  out += '\n';
}

// The first `max_rows` lines (0: all), what the others add up to, and the sum of all.
std::string text_of(const std::vector<Column>& columns, const std::vector<Line>& lines, size_t max_rows) {
  const size_t shown = max_rows == 0 ? lines.size() : std::min(max_rows, lines.size());
  std::string out;
  const auto append = [&](const Line& line) {
    append_line(out, columns, [&](const Column& column) { return column.text(line); });
  };
  const auto append_sum = [&](const std::string& label, size_t begin) {
    append_line(out, columns, [&, sum = sum_of(lines, begin)](const Column& column) {
      return &column == &columns[0] ? label : column.text(sum);
    });
  };
  append_line(out, columns, [](const Column& column) { return column.head; });
  for (size_t i = 0; i < shown; ++i) append(lines[i]);
  if (shown < lines.size()) append_sum(std::to_string(lines.size() - shown) + " more", shown);
  append_sum("all ops", 0);
  return out;
}

// ---- columns -------------------------------------------------------------------------------------------------------

Column layer_column(const std::vector<Line>& lines, size_t max_rows) {
  size_t width = 24;
  for (size_t i = 0; i < lines.size() && (max_rows == 0 || i < max_rows); ++i) {
    width = std::max(width, lines[i].row.layer.size());
  }
  return {"layer", -static_cast<int>(width), [](const Line& line) { return line.row.layer; }};
}

const Column kOp = {"op", -18, [](const Line& line) { return line.row.op; }};

const Column kFlops = {"GFLOP", 8, [](const Line& line) {
                         const double flops = line.row.work().flops;
                         return flops > 0 ? fixed(1e-9 * flops, 2) : std::string("-");
                       }};

const Column kBytes = {"MB", 9, [](const Line& line) { return fixed(1e-6 * line.row.work().bytes, 1); }};

std::vector<Column> time_columns(double step_ms) {
  return {{"fwd ms", 9, [](const Line& line) { return fixed(line.row.forward.ms, 3); }},
          {"bwd ms", 9, [](const Line& line) { return fixed(line.row.backward.ms, 3); }},
          {"%step", 6, [=](const Line& line) { return fixed(share(line.row.ms(), step_ms), 1); }},
          kFlops,
          {"GFLOP/s", 8,
           [](const Line& line) {
             const double flops = line.row.work().flops;
             return flops > 0 ? fixed(1e-9 * rate(flops, line.row.ms()), 1) : std::string("-");
           }},
          kBytes,
          {"GB/s", 7, [](const Line& line) { return fixed(1e-9 * rate(line.row.work().bytes, line.row.ms()), 1); }},
          {"bound ms", 9, [](const Line& line) { return fixed(line.bound().ms(), 3); }},
          {"%bound", 6, [](const Line& line) { return fixed(share(line.bound().ms(), line.row.ms()), 1); }}};
}

const char* bound_by(const StepBound& bound) {
  if (bound.ms() == 0) return "-";
  if (bound.products_ms == 0) return "memory";
  return bound.memory_ms == 0 ? "products" : "both";
}

std::vector<Column> bound_columns(double step_ms) {
  return {
      {"calls", 5, [](const Line& line) { return std::to_string(line.row.forward.calls + line.row.backward.calls); }},
      kFlops,
      kBytes,
      {"fwd bound ms", 12, [](const Line& line) { return fixed(line.forward.ms(), 3); }},
      {"bwd bound ms", 12, [](const Line& line) { return fixed(line.backward.ms(), 3); }},
      {"bound by", -8, [](const Line& line) { return std::string(bound_by(line.bound())); }},
      {"%step", 6, [=](const Line& line) { return fixed(share(line.bound().ms(), step_ms), 1); }}};
}

std::vector<Column> joined(std::vector<Column> first, const std::vector<Column>& rest) {
  first.insert(first.end(), rest.begin(), rest.end());
  return first;
}

ordered_json json_of(const OpTime& time, const StepBound& bound) {
  return {{"calls", time.calls},
          {"flops", time.work.flops},
          {"bytes", time.work.bytes},
          {"bound_ms", bound.ms()},
          {"bound_by", bound_by(bound)}};
}

}  // namespace

double median_of(std::vector<double> values) {
  if (values.empty()) return 0.0;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

void OpTable::add_step(const std::vector<OpSample>& samples, double step_ms) {
  for (auto& [key, entry] : entries_) {
    for (Direction* direction : {&entry.forward, &entry.backward}) direction->ms.push_back(0.0);
  }
  const size_t step = step_ms_.size();
  double ops_ms = 0;
  std::map<std::string, double> part_ms;
  for (const OpSample& sample : samples) {
    const auto [layer, backward] = layer_of(sample.range);
    Entry& entry = entries_[{layer, std::string(sample.op)}];
    for (Direction* direction : {&entry.forward, &entry.backward}) direction->ms.resize(step + 1, 0.0);
    Direction& direction = backward ? entry.backward : entry.forward;
    direction.ms[step] += sample.ms;
    ops_ms += sample.ms;
    part_ms[part_of(layer)] += sample.ms;
    // The work is that of all steps, and the same in each.
    direction.work.flops += sample.work.flops;
    direction.work.bytes += sample.work.bytes;
    ++direction.calls;
  }
  for (const auto& [name, ms] : part_ms) {
    StepPart& part = parts_[name];
    part.name = name;
    part.ms += (ms - part.ms) / ++part.steps;
  }
  step_ms_.push_back(step_ms);
  ops_ms_.push_back(ops_ms);
}

OpTime OpTable::time_of(const Direction& direction) {
  const auto steps = static_cast<double>(direction.ms.size());
  return {median_of(direction.ms),
          {direction.work.flops / steps, direction.work.bytes / steps},
          direction.calls / static_cast<int>(direction.ms.size())};
}

std::vector<OpRow> OpTable::rows() const {
  std::vector<OpRow> rows;
  for (const auto& [key, entry] : entries_) {
    rows.push_back({key.first, key.second, time_of(entry.forward), time_of(entry.backward)});
  }
  std::stable_sort(rows.begin(), rows.end(), [](const OpRow& a, const OpRow& b) { return a.ms() > b.ms(); });
  return rows;
}

std::vector<StepPart> OpTable::parts() const {
  std::vector<StepPart> parts;
  for (const char* name : kParts) {
    if (const auto found = parts_.find(name); found != parts_.end()) parts.push_back(found->second);
  }
  return parts;
}

std::string parts_text(const OpTable& table) {
  const int steps = table.steps();
  return list_text(table.parts(), [&](const StepPart& part) {
    const std::string some = part.steps < steps ? concat_text(" in ", part.steps, " of ", steps, " steps") : "";
    return concat_text(part.name, ' ', fixed(part.ms, 2), " ms", some);
  });
}

std::string table_text(const OpTable& table, const MachinePeak& peak, size_t max_rows) {
  const std::vector<Line> lines = lines_of(table.rows(), peak);
  const double step_ms = table.step_ms(), outside_ms = step_ms - table.ops_ms();
  return text_of(joined({layer_column(lines, max_rows), kOp}, time_columns(step_ms)), lines, max_rows) + "step " +
         fixed(step_ms, 2) + " ms, of which " + fixed(outside_ms, 2) + " ms (" + fixed(share(outside_ms, step_ms), 1) +
         "%) outside ops\n";
}

ordered_json table_json(const OpTable& table, const MachinePeak& peak) {
  const std::vector<Line> lines = lines_of(table.rows(), peak);
  const auto timed = [](const OpTime& time, const StepBound& bound) {
    ordered_json json{{"ms", time.ms}};
    json.update(json_of(time, bound));
    return json;
  };
  ordered_json list = ordered_json::array();
  for (const Line& line : lines) {
    list.push_back({{"layer", line.row.layer},
                    {"op", line.row.op},
                    {"ms", line.row.ms()},
                    {"percent_of_bound", share(line.bound().ms(), line.row.ms())},
                    {"forward", timed(line.row.forward, line.forward)},
                    {"backward", timed(line.row.backward, line.backward)}});
  }
  const Line all = sum_of(lines);
  ordered_json parts = ordered_json::object();
  for (const StepPart& part : table.parts()) parts[part.name] = {{"ms", part.ms}, {"steps", part.steps}};
  return {{"parts", std::move(parts)},    {"step_ms", table.step_ms()},    {"ops_ms", table.ops_ms()},
          {"bound_ms", all.bound().ms()}, {"flops", all.row.work().flops}, {"bytes", all.row.work().bytes},
          {"rows", std::move(list)}};
}

StepBound step_bound(const OpTable& table, const MachinePeak& peak) {
  return sum_of(lines_of(table.rows(), peak)).bound();
}

std::string bound_text(const OpTable& table, const MachinePeak& peak, size_t max_rows) {
  std::vector<Line> lines = lines_of(table.rows(), peak);
  sort_by_bound(lines);
  const std::vector<Column> columns = bound_columns(sum_of(lines).bound().ms());
  return text_of(joined({layer_column(lines, max_rows), kOp}, columns), lines, max_rows) + "\n" +
         text_of(joined({kOp}, columns), lines_by_op(lines), 0);
}

ordered_json bound_json(const OpTable& table, const MachinePeak& peak) {
  std::vector<Line> lines = lines_of(table.rows(), peak);
  sort_by_bound(lines);
  const auto list_of = [](const std::vector<Line>& from, bool layers) {
    ordered_json list = ordered_json::array();
    for (const Line& line : from) {
      ordered_json json;
      if (layers) json["layer"] = line.row.layer;
      json.update({{"op", line.row.op},
                   {"bound_ms", line.bound().ms()},
                   {"bound_by", bound_by(line.bound())},
                   {"forward", json_of(line.row.forward, line.forward)},
                   {"backward", json_of(line.row.backward, line.backward)}});
      list.push_back(std::move(json));
    }
    return list;
  };
  const Line all = sum_of(lines);
  return {{"bound_ms", all.bound().ms()},
          {"bound_by_products_ms", all.bound().products_ms},
          {"bound_by_memory_ms", all.bound().memory_ms},
          {"flops", all.row.work().flops},
          {"bytes", all.row.work().bytes},
          {"rows", list_of(lines, true)},
          {"ops", list_of(lines_by_op(lines), false)}};
}

}  // namespace depthstill
