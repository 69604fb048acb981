#include "engine/data/list_file.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>

#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

constexpr uint64_t kMaxListBytes = uint64_t{1} << 30;

std::vector<std::string_view> split_columns(std::string_view line) {
  constexpr std::string_view kBlanks = " \t";
  std::vector<std::string_view> columns;
  for (size_t at = line.find_first_not_of(kBlanks); at != std::string_view::npos;) {
    const size_t end = std::min(line.find_first_of(kBlanks, at), line.size());
    columns.push_back(line.substr(at, end - at));
    at = line.find_first_not_of(kBlanks, end);
  }
  return columns;
}

// The published NYU lists begin paths with '/', though they are relative to the data folder.
std::string relative_path(std::string_view path, const std::string& where) {
  const size_t begin = path.find_first_not_of('/');
  check(begin != std::string_view::npos, where, ": expected a file name, found '", printable(path), "'");
  return std::string(path.substr(begin));
}

ListEntry parse_line(std::string_view line, const std::string& where) {
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 && c != '\t'; };
  check(std::none_of(line.begin(), line.end(), is_control), where, ": expected text, found '", printable(line), "'");
  const std::vector<std::string_view> columns = split_columns(line);
  check(columns.size() == 3, where, ": expected 3 columns (image depth focal), found ", columns.size());
  ListEntry entry;
  entry.image = relative_path(columns[0], where);
  if (columns[1] != "None") entry.depth = relative_path(columns[1], where);
  const std::string_view focal = columns[2];
  const auto [end, error] = std::from_chars(focal.data(), focal.data() + focal.size(), entry.focal);
  check(error == std::errc() && end == focal.data() + focal.size() && std::isfinite(entry.focal) && entry.focal > 0,
        where, ": expected a focal length in pixels, found '", printable(focal), "'");
  return entry;
}

}  // namespace

std::vector<ListEntry> parse_list(const std::string& text, const std::string& name, ListOrder order) {
  std::vector<std::string> lines = split_lines(text);
  while (!lines.empty() && split_columns(lines.back()).empty()) lines.pop_back();
  check(!lines.empty(), name, ": expected lines 'image depth focal', found an empty list");
  std::vector<ListEntry> entries;
  entries.reserve(lines.size());
  for (size_t i = 0; i < lines.size(); ++i) {
    entries.push_back(parse_line(lines[i], concat_text(name, ':', i + 1)));
    entries.back().line = static_cast<int>(i + 1);
  }
  if (order == ListOrder::kByImage) {
    std::stable_sort(entries.begin(), entries.end(),
                     [](const ListEntry& a, const ListEntry& b) { return a.image < b.image; });
  }
  return entries;
}

std::vector<ListEntry> read_list(const std::string& path, ListOrder order) {
  return parse_list(read_text(path, kMaxListBytes), path, order);
}

}  // namespace depthstill
