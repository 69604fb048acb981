#include "engine/data/list_file.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <string_view>

#include "engine/io/text_file.h"

namespace depthstill {
namespace {

constexpr uint64_t kMaxListBytes = uint64_t{1} << 30;

// Reads a column in double quotes from `at` on, where "" stands for one of them; returns where it ends.
size_t read_quoted(std::string_view line, size_t at, std::string& column) {
  for (++at; at < line.size(); ++at) {
    if (line[at] == '"') {
      if (at + 1 >= line.size() || line[at + 1] != '"') return at + 1;
      ++at;
    }
    column += line[at];
  }
  fail("expected a closing \", found the end of the line");
}

// The columns of a line: what stands between its tabs if it has any, else between blanks.
std::vector<std::string> split_columns(std::string_view line) {
  const bool tabs = line.find('\t') != std::string_view::npos;
  std::vector<std::string> columns;
  for (size_t at = 0; (at = line.find_first_not_of(" \t", at)) != std::string_view::npos;) {
    std::string column;
    if (line[at] == '"') {
      at = read_quoted(line, at, column);
      const size_t next = tabs ? std::min(line.find_first_not_of(' ', at), line.size()) : at;
      check(next == line.size() || line[next] == (tabs ? '\t' : ' '), "expected a ", tabs ? "tab" : "blank",
            " behind a closing \", found '", printable(line.substr(next)), "'");
    } else {
      const size_t end = std::min(line.find(tabs ? '\t' : ' ', at), line.size());
      column = line.substr(at, end - at);
      column.erase(column.find_last_not_of(' ') + 1);
      at = end;
    }
    columns.push_back(std::move(column));
  }
  return columns;
}

bool read_number(const std::string& text, double& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

// Whether a third column is a file (a mask or a filled map) and not a misspelt number.
bool is_file_name(const std::string& text) {
  const size_t dot = text.rfind('.');
  const bool extension =
      dot != std::string::npos && dot + 1 < text.size() && std::isalpha(static_cast<unsigned char>(text[dot + 1]));
  return extension || text.find_first_of("/\\") != std::string::npos;
}

std::string file_path(const std::string& column) {
  std::string path = plain_path(column);
  check(path.find_first_not_of('/') != std::string::npos, "expected a file name, found '", printable(column), "'");
  return path;
}

ListEntry parse_folder(std::string_view line) {
  const size_t end = line.find_last_not_of(" \t") + 1;
  const std::string folder = file_path(std::string(line.substr(0, end)));
  ListEntry entry;
  entry.image = folder + "/image.jpg";
  entry.depth = folder + "/depth.png";
  return entry;
}

ListEntry parse_line(std::string_view line, ListForm form) {
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 && c != '\t'; };
  check(std::none_of(line.begin(), line.end(), is_control), "expected text, found '", printable(line), "'");
  if (form == ListForm::kFolders) return parse_folder(line);
  const std::vector<std::string> columns = split_columns(line);
  const size_t count = columns.size();
  if (count != 2 && count != 3) {
    const bool commas = count == 1 && line.find(',') != std::string_view::npos;
    fail("expected 3 columns (image depth focal) or 2 (image depth), found ", count,
         commas ? "; columns are separated by blanks or tabs, not by commas" : "",
         count > 3 ? "; a name with blanks needs double quotes, or tabs between the columns" : "");
  }
  ListEntry entry;
  entry.image = file_path(columns[0]);
  double number = 0;
  check(!read_number(columns[1], number),
        "expected 3 columns (image depth focal) or 2 (image depth), found a number as depth: '", printable(columns[1]),
        "'", line.find('\t') != std::string_view::npos ? "; a line with a tab is split at tabs alone" : "");
  if (columns[1] != "None") entry.depth = file_path(columns[1]);
  if (count == 2 || columns[2] == "None") return entry;
  const bool focal = read_number(columns[2], entry.focal) && std::isfinite(entry.focal) && entry.focal > 0;
  check(focal || is_file_name(columns[2]), "expected a focal length in pixels, found '", printable(columns[2]), "'");
  if (!focal) {
    entry.focal = 0;
    entry.extra = plain_path(columns[2]);
  }
  return entry;
}

std::string_view below(std::string_view path) { return path.starts_with('/') ? path.substr(1) : path; }

}  // namespace

void BadLines::add(std::string message) {
  if (++count <= static_cast<int64_t>(kNamed)) named.push_back(std::move(message));
}

void BadLines::check_none() const {
  if (count == 0) return;
  std::string text;
  for (const std::string& message : named) text += (text.empty() ? "" : "; ") + message;
  const int64_t more = count - static_cast<int64_t>(named.size());
  fail(text, more > 0 ? concat_text(" (and ", more, " more such lines)") : "");
}

std::string plain_path(std::string_view path) {
  std::string plain = path.starts_with('/') ? "/" : "";
  while (!path.empty()) {
    const size_t end = std::min(path.find('/'), path.size());
    const std::string_view part = path.substr(0, end);
    path.remove_prefix(std::min(end + 1, path.size()));
    if (part.empty() || part == ".") continue;
    if (!plain.empty() && plain.back() != '/') plain += '/';
    plain += part;
  }
  return plain;
}

std::vector<ListEntry> parse_list(const std::string& text, const std::string& name, ListOrder order, BadLines* bad,
                                  ListForm form) {
  BadLines own;
  BadLines& refused = bad == nullptr ? own : *bad;
  const std::vector<std::string> lines = split_lines(text);
  std::vector<ListEntry> entries;
  bool empty = true;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].starts_with('#') || lines[i].find_first_not_of(" \t") == std::string::npos) continue;
    empty = false;
    refused.attempt(concat_text(name, ':', i + 1), [&] {
      entries.push_back(parse_line(lines[i], form));
      entries.back().line = static_cast<int>(i + 1);
    });
  }
  own.check_none();
  check(!empty, name, ": expected lines ", form == ListForm::kFolders ? "with a folder" : "'image depth focal'",
        ", found an empty list");
  if (order == ListOrder::kByImage) {
    std::stable_sort(entries.begin(), entries.end(),
                     [](const ListEntry& a, const ListEntry& b) { return below(a.image) < below(b.image); });
  }
  return entries;
}

std::vector<ListEntry> read_list(const std::string& path, ListOrder order, BadLines* bad, ListForm form) {
  return parse_list(read_text(path, kMaxListBytes), path, order, bad, form);
}

}  // namespace depthstill
