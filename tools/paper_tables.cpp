#include "tools/paper_tables.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>
#include <variant>

#include "engine/eval/metrics.h"
#include "engine/eval/ranks.h"
#include "engine/io/csv_cell.h"
#include "engine/io/text_file.h"
#include "kernels/core/error.h"
#include "tools/report/chart.h"
#include "tools/toml_document.h"

namespace depthstill {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// The entries in the order of their lines; tables of TOML have none.
std::vector<TomlEntry> entries_in_order(const std::string& path) {
  std::vector<TomlEntry> entries = parse_toml(read_text(path), path);
  const auto line = [](const TomlEntry& entry) {
    int number = 0;
    const size_t colon = entry.where.rfind(':');
    std::from_chars(entry.where.data() + colon + 1, entry.where.data() + entry.where.size(), number);
    return number;
  };
  std::stable_sort(entries.begin(), entries.end(),
                   [&](const TomlEntry& a, const TomlEntry& b) { return line(a) < line(b); });
  return entries;
}

std::string string_of(const TomlEntry& entry) {
  const auto* text = std::get_if<std::string>(&entry.value);
  check(text != nullptr, entry.where, ": '", entry.key, "': expected a string, found ", describe_type(entry.value));
  return *text;
}

std::vector<double> figures_of(const TomlEntry& entry, const std::string& system, size_t columns) {
  const auto* array = std::get_if<TomlArray>(&entry.value);
  check(array != nullptr && array->size() == columns, entry.where, ": '", system, "': expected ", columns,
        " figures, one per column, found ", array == nullptr ? 0 : array->size());
  std::vector<double> figures;
  for (const TomlScalar& scalar : *array) {
    const auto* number = std::get_if<double>(&scalar);
    const auto* integer = std::get_if<int64_t>(&scalar);
    const auto* text = std::get_if<std::string>(&scalar);
    check(number != nullptr || integer != nullptr || (text != nullptr && *text == "-"), entry.where, ": '", system,
          "': expected numbers, or \"-\" for none");
    figures.push_back(number != nullptr ? *number : integer != nullptr ? static_cast<double>(*integer) : kNone);
  }
  return figures;
}

// What follows `prefix` in a key, if it begins with that.
std::optional<std::string> after(const std::string& key, std::string_view prefix) {
  if (!key.starts_with(prefix)) return std::nullopt;
  return key.substr(prefix.size());
}

class TablesReader {
 public:
  explicit TablesReader(std::string path) : path_(std::move(path)) {}

  PaperTables read() {
    for (const TomlEntry& entry : entries_in_order(path_)) take(entry);
    check(!tables_.paper.empty(), path_, ": expected the key paper, found none");
    check(!tables_.tables.empty(), path_, ": expected [tables.NUMBER], found none");
    return std::move(tables_);
  }

 private:
  void take(const TomlEntry& entry) {
    const bool is_table = std::holds_alternative<std::monostate>(entry.value);
    if (entry.key == "paper") {
      tables_.paper = string_of(entry);
    } else if (const auto name = after(entry.key, "evaluations.")) {
      if (!is_table) take_evaluation(entry, *name);
    } else if (const auto key = after(entry.key, "tables.")) {
      const size_t dot = key->find('.');
      if (dot == std::string::npos && is_table) {
        tables_.tables.push_back({*key, "", {}, {}, false});
      } else if (!is_table) {
        check(
            dot != std::string::npos && !tables_.tables.empty() && tables_.tables.back().number == key->substr(0, dot),
            entry.where, ": '", entry.key, "': expected it below its [tables.NUMBER]");
        take_table(entry, key->substr(dot + 1));
      }
    } else {
      check(is_table, entry.where, ": '", entry.key, "': expected paper, [evaluations.NAME] or [tables.NUMBER]");
    }
  }

  void take_evaluation(const TomlEntry& entry, const std::string& key) {
    const size_t dot = key.find('.');
    const std::string name = key.substr(0, dot), field = dot == std::string::npos ? "" : key.substr(dot + 1);
    TableEvaluation& evaluation = tables_.evaluations[name];
    if (evaluation.source.empty()) evaluation.source = name;
    if (field == "source") {
      evaluation.source = string_of(entry);
    } else {
      check(field == "arguments", entry.where, ": '", entry.key, "': expected arguments or source");
      evaluation.arguments = texts_of(entry);
    }
  }

  void take_table(const TomlEntry& entry, const std::string& key) {
    PaperTable& table = tables_.tables.back();
    if (const auto system = after(key, "rows.")) {
      table.rows.push_back({*system, figures_of(entry, *system, table.columns.size())});
    } else if (key == "title") {
      table.title = string_of(entry);
    } else if (key == "average_rank") {
      const auto* flag = std::get_if<bool>(&entry.value);
      check(flag != nullptr, entry.where, ": '", entry.key, "': expected a boolean, found ",
            describe_type(entry.value));
      table.average_rank = *flag;
    } else {
      check(key == "columns", entry.where, ": '", entry.key, "': expected title, columns, average_rank or rows");
      for (const std::string& column : texts_of(entry)) take_column(entry.where, column, table);
    }
  }

  void take_column(const std::string& where, const std::string& column, PaperTable& table) {
    const size_t blank = column.find(' ');
    check(blank != std::string::npos && tables_.evaluations.contains(column.substr(0, blank)), where, ": '", column,
          "': expected an evaluation and a metric, of the evaluations ",
          list_text(tables_.evaluations, [](const auto& each) { return each.first; }));
    table.columns.push_back({column.substr(0, blank), metric_field(column.substr(blank + 1)).name});
  }

  std::string path_;
  PaperTables tables_;
};

double figure(const TableFigures& ours, const std::string& system, const TableColumn& column) {
  const auto found = ours.find({system, column.name()});
  return found == ours.end() ? kNone : found->second;
}

std::string formatted(const char* format, double value) {
  if (std::isnan(value)) return "";
  std::array<char, 40> text{};
  std::snprintf(text.data(), text.size(), format, value);
  return text.data();
}

std::string cell(const char* format, double value) { return std::isnan(value) ? "-" : formatted(format, value); }

// Columns that belong together under one name; the first line of cells are their heads, one per system follows.
struct Group {
  std::string name;
  const MetricField* metric;  // null: average ranks
  std::vector<std::vector<std::string>> lines;
};

std::vector<std::optional<double>> ranks_of(const PaperTable& table, const TableFigures* ours) {
  std::vector<RankedColumn> columns;
  for (size_t c = 0; c < table.columns.size(); ++c) {
    RankedColumn column{{}, metric_field(table.columns[c].metric).lower_is_better};
    for (const TableRow& row : table.rows) {
      column.values.push_back(ours != nullptr ? figure(*ours, row.system, table.columns[c]) : row.paper[c]);
    }
    columns.push_back(std::move(column));
  }
  return average_ranks(columns, table.rows.size());
}

std::vector<Group> groups_of(const PaperTable& table, const TableFigures& ours) {
  std::vector<Group> groups;
  for (size_t c = 0; c < table.columns.size(); ++c) {
    const TableColumn& column = table.columns[c];
    Group group{column.name(), &metric_field(column.metric), {{"ours", "paper", "difference"}}};
    for (const TableRow& row : table.rows) {
      const double mine = figure(ours, row.system, column), theirs = row.paper[c];
      group.lines.push_back({cell("%.4f", mine), cell("%.4f", theirs), cell("%+.4f", mine - theirs)});
    }
    groups.push_back(std::move(group));
  }
  if (!table.average_rank) return groups;
  const auto our_ranks = ranks_of(table, &ours), their_ranks = ranks_of(table, nullptr);
  Group ranks{"average rank", nullptr, {{"ours", "paper"}}};
  for (size_t r = 0; r < table.rows.size(); ++r) {
    ranks.lines.push_back({cell("%.1f", our_ranks[r].value_or(kNone)), cell("%.1f", their_ranks[r].value_or(kNone))});
  }
  groups.push_back(std::move(ranks));
  return groups;
}

std::string title_of(const PaperTables& tables, const PaperTable& table) {
  return concat_text(tables.paper, ", Table ", table.number, ": ", table.title);
}

std::string padded(const std::string& text, size_t width) {
  return text + std::string(std::max(width, text.size()) - text.size(), ' ');
}

// The lines of a group, all of one width: its name, the heads, a line per system.
std::vector<std::string> lines_of(const Group& group) {
  std::vector<std::string> lines{"  " + group.name};
  std::vector<size_t> widths(group.lines[0].size());
  for (const auto& cells : group.lines) {
    for (size_t c = 0; c < cells.size(); ++c) widths[c] = std::max(widths[c], cells[c].size());
  }
  for (const auto& cells : group.lines) {
    lines.emplace_back();
    for (size_t c = 0; c < cells.size(); ++c) {
      lines.back() += "  " + std::string(widths[c] - cells[c].size(), ' ') + cells[c];
    }
  }
  const size_t width = std::max(lines[0].size(), lines[1].size());
  for (std::string& line : lines) line = padded(line, width);
  return lines;
}

// The systems, then groups of columns; those that would make a line too long come below.
std::string text_of(const PaperTable& table, const TableFigures& ours) {
  constexpr size_t kLine = 120;
  std::vector<std::string> systems{"", "system"};
  for (const TableRow& row : table.rows) systems.push_back(row.system);
  size_t width = 0;
  for (const std::string& system : systems) width = std::max(width, system.size());
  for (std::string& system : systems) system = padded(system, width);
  std::string text;
  std::vector<std::string> block = systems;
  const auto end_block = [&] {
    for (const std::string& line : block) text += line.substr(0, line.find_last_not_of(' ') + 1) + '\n';
    text += '\n';
    block = systems;
  };
  for (const Group& group : groups_of(table, ours)) {
    const std::vector<std::string> lines = lines_of(group);
    if (block != systems && block[0].size() + lines[0].size() > kLine) end_block();
    for (size_t i = 0; i < block.size(); ++i) block[i] += lines[i];
  }
  end_block();
  return text;
}

std::string html_of(const PaperTable& table, const TableFigures& ours) {
  const std::vector<Group> groups = groups_of(table, ours);
  std::string html = "<div class='scroll'><table><colgroup></colgroup>";
  for (const Group& group : groups) html += concat_text("<colgroup span='", group.lines[0].size(), "'></colgroup>");
  html += "<tr><th rowspan='2'>system</th>";
  for (const Group& group : groups) {
    const char* better = group.metric == nullptr || group.metric->lower_is_better ? " ↓" : " ↑";
    html += concat_text("<th colspan='", group.lines[0].size(), "'>", escape_html(group.name), better, "</th>");
  }
  for (size_t i = 0; i <= table.rows.size(); ++i) {
    const std::string tag = i == 0 ? "th" : "td";
    html += "</tr><tr>" + (i == 0 ? "" : "<td>" + escape_html(table.rows[i - 1].system) + "</td>");
    for (const Group& group : groups) {
      for (const std::string& text : group.lines[i]) html += concat_text('<', tag, '>', text, "</", tag, '>');
    }
  }
  return html + "</tr></table></div>";
}

}  // namespace

PaperTables read_paper_tables(const std::string& path) { return TablesReader(path).read(); }

std::string tables_text(const PaperTables& tables, const TableFigures& ours, const std::vector<TableNotes>& notes) {
  std::string text;
  for (const PaperTable& table : tables.tables) text += title_of(tables, table) + '\n' + text_of(table, ours);
  for (const TableNotes& each : notes) {
    if (each.lines.empty()) continue;
    text += each.title + ":\n";
    for (const std::string& line : each.lines) text += "  " + line + '\n';
  }
  return text;
}

std::string tables_csv(const PaperTables& tables, const TableFigures& ours) {
  std::string text = kTablesCsvHead;
  for (const PaperTable& table : tables.tables) {
    for (const TableRow& row : table.rows) {
      for (size_t c = 0; c < table.columns.size(); ++c) {
        const double mine = figure(ours, row.system, table.columns[c]), theirs = row.paper[c];
        text += concat_text(table.number, ',', csv_quoted(row.system), ',', table.columns[c].name(), ',',
                            formatted("%.9g", mine), ',', formatted("%.9g", theirs), ',',
                            formatted("%.9g", mine - theirs), '\n');
      }
    }
  }
  return text;
}

std::string tables_html(const PaperTables& tables, const TableFigures& ours, const std::vector<TableNotes>& notes) {
  std::string html;
  for (const PaperTable& table : tables.tables) {
    html += "<h2>" + escape_html(title_of(tables, table)) + "</h2>" + html_of(table, ours);
  }
  for (const TableNotes& each : notes) {
    if (each.lines.empty()) continue;
    html += "<h3>" + escape_html(tables.paper + ", " + each.title) + "</h3><ul>";
    for (const std::string& line : each.lines) html += "<li>" + escape_html(line) + "</li>";
    html += "</ul>";
  }
  return html;
}

}  // namespace depthstill
