// The tables of a paper with ours beside them: which systems are evaluated how, what the paper has, what is missing.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace depthstill {

// A way to evaluate a system: arguments of `eval` without data and predictions.
struct TableEvaluation {
  std::string source;  // the key by which a system names what is evaluated: predictions or weights
  std::vector<std::string> arguments;
};

struct TableColumn {
  std::string evaluation, metric;
  std::string name() const { return evaluation + ' ' + metric; }
};

struct TableRow {
  std::string system;
  std::vector<double> paper;  // one per column; NaN: the paper has none
};

struct PaperTable {
  std::string number, title;
  std::vector<TableColumn> columns;
  std::vector<TableRow> rows;
  bool average_rank = false;
};

struct PaperTables {
  std::string paper;
  std::map<std::string, TableEvaluation> evaluations;
  std::vector<PaperTable> tables;  // in the order of the file
};

// A TOML file as those of tools/tables: paper, [evaluations.NAME] with arguments and, where it is not NAME, source,
// [tables.NUMBER] with title, columns ("EVALUATION METRIC") and average_rank, [tables.NUMBER.rows] with an array of
// figures per system, "-" where there is none. Throws Error "FILE:LINE: ..." for another.
PaperTables read_paper_tables(const std::string& path);

// Figures of ours by system and column name.
using TableFigures = std::map<std::pair<std::string, std::string>, double>;

// What is said below the tables: a line per item; without any, nothing.
struct TableNotes {
  std::string title;
  std::vector<std::string> lines;
};

// Ours, the paper's and the difference, cell by cell, and average ranks where a table has them. What is not there is
// "-", in CSV empty. HTML is the body of a report's section.
inline constexpr const char* kTablesCsvHead = "table,system,column,ours,paper,difference\n";
std::string tables_text(const PaperTables& tables, const TableFigures& ours, const std::vector<TableNotes>& notes);
std::string tables_csv(const PaperTables& tables, const TableFigures& ours);
std::string tables_html(const PaperTables& tables, const TableFigures& ours, const std::vector<TableNotes>& notes);

}  // namespace depthstill
