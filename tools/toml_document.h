// A TOML file as a flat list of dotted keys with their lines. No other code touches toml++.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace depthstill {

using TomlScalar = std::variant<bool, int64_t, double, std::string>;
using TomlArray = std::vector<TomlScalar>;
using TomlValue = std::variant<std::monostate, bool, int64_t, double, std::string, TomlArray>;  // monostate: a table

struct TomlEntry {
  std::string key;  // "model.bins"
  TomlValue value;
  std::string where;  // "file:line"
};

// Every key of the text, tables before their members. Throws Error "file:line: ..." for anything that is not TOML made
// of tables, scalars and flat arrays, and for text that is not plain UTF-8.
std::vector<TomlEntry> parse_toml(std::string_view text, const std::string& file);

// "a boolean", "an integer", "a number", "a string", "an array", "a table".
const char* describe_type(const TomlValue& value);

// Writes the value as TOML: strings are quoted and escaped, numbers read back to the same value.
std::string format_toml(const TomlValue& value);
std::string toml_quoted(const std::string& text);  // a TOML string
// The strings of an array. Throws Error "WHERE: 'KEY': expected ..." for another value.
std::vector<std::string> texts_of(const TomlEntry& entry);

}  // namespace depthstill
