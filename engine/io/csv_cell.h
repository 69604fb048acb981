// Text in CSV.
#pragma once

#include <string>
#include <string_view>

namespace depthstill {

// A cell in quotes, with those of the text twice.
inline std::string csv_quoted(std::string_view text) {
  std::string cell = "\"";
  for (const char c : text) cell += c == '"' ? "\"\"" : std::string(1, c);
  return cell + '"';
}

// The text as it is, in quotes where it would end the cell.
inline std::string csv_cell(std::string_view text) {
  return text.find_first_of(",\"\n") == std::string_view::npos ? std::string(text) : csv_quoted(text);
}

}  // namespace depthstill
