// Binds dotted TOML keys to variables: one list serves reading, checking, printing and the spelling hints.
#pragma once

#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "kernels/core/error.h"
#include "tools/toml_document.h"

namespace depthstill {

// Bounds of a number, both included.
struct Range {
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
};
inline constexpr Range kPositive{std::numeric_limits<double>::min(), std::numeric_limits<double>::infinity()};
inline constexpr Range kNotNegative{0, std::numeric_limits<double>::infinity()};

class Settings {
 public:
  // Each adds a key. `doc` is one line with the unit, printed behind the value.
  void flag(std::string key, bool& target, std::string doc);
  template <class T>
  void integer(const std::string& key, T& target, Range range, const std::string& doc);
  template <class T>
  void number(const std::string& key, T& target, Range range, const std::string& doc);
  void text(std::string key, std::string& target, std::string doc);
  void numbers(std::string key, std::vector<double>& target, Range range, std::string doc);
  void integers(std::string key, std::vector<int64_t>& target, Range range, std::string doc);
  void texts(std::string key, std::vector<std::string>& target, std::string doc);
  template <class Enum>
  void choice(const std::string& key, Enum& target, std::vector<std::pair<std::string, Enum>> names,
              const std::string& doc);
  // A value of another kind: `set` throws Error that says what it expected.
  void custom(std::string key, std::function<void(const TomlValue&)> set, std::function<TomlValue()> get,
              std::string doc);

  // Sets one key. Throws Error "where: unknown key ..., did you mean ...?" or "where: 'key': expected ..., found ...".
  void apply(const TomlEntry& entry) const;
  // "key=value" from the command line as an entry; the value is TOML, and a bare word is taken as text.
  TomlEntry parse_override(const std::string& assignment) const;

  TomlValue value(const std::string& key) const;
  std::vector<std::string> keys() const;

  // All settings as TOML, grouped in tables, with the docs as comments; those for which `implied` is true as comments.
  std::string print(const std::function<bool(const std::string& key, const TomlValue& value)>& implied) const;

 private:
  struct Setting {
    std::string key, doc;
    std::function<void(const TomlValue&)> set;
    std::function<TomlValue()> get;
  };
  const Setting* find(const std::string& key) const;
  std::string hint(const std::string& key) const;  // ", did you mean 'x.y'?" or nothing

  std::vector<Setting> settings_;
};

namespace detail {
int64_t integer_of(const TomlValue& value, Range range);
double number_of(const TomlValue& value, Range range);
const std::string& text_of(const TomlValue& value);
double shortest(float value);  // the double with the fewest digits that rounds to `value`
}  // namespace detail

template <class T>
void Settings::integer(const std::string& key, T& target, Range range, const std::string& doc) {
  range.low = std::max(range.low, static_cast<double>(std::numeric_limits<T>::min()));
  range.high = std::min(range.high, static_cast<double>(std::numeric_limits<T>::max()));
  custom(
      key, [&target, range](const TomlValue& v) { target = static_cast<T>(detail::integer_of(v, range)); },
      [&target] { return TomlValue(static_cast<int64_t>(target)); }, doc);
}

template <class T>
void Settings::number(const std::string& key, T& target, Range range, const std::string& doc) {
  custom(
      key, [&target, range](const TomlValue& v) { target = static_cast<T>(detail::number_of(v, range)); },
      [&target] {
        if constexpr (std::is_same_v<T, float>) return TomlValue(detail::shortest(target));
        return TomlValue(static_cast<double>(target));
      },
      doc);
}

template <class Enum>
void Settings::choice(const std::string& key, Enum& target, std::vector<std::pair<std::string, Enum>> names,
                      const std::string& doc) {
  std::string expected;
  for (size_t i = 0; i < names.size(); ++i) {
    expected += (i == 0 ? "" : i + 1 == names.size() ? " or " : ", ") + names[i].first;
  }
  const auto get = [&target, names] {
    for (const auto& [name, value] : names) {
      if (value == target) return TomlValue(name);
    }
    return TomlValue(std::string());
  };
  custom(
      key,
      [&target, names, expected](const TomlValue& v) {
        const std::string& text = detail::text_of(v);
        for (const auto& [name, value] : names) {
          if (name != text) continue;
          target = value;
          return;
        }
        fail("expected ", expected, ", found '", text, "'");
      },
      get, doc + ": " + expected);
}

}  // namespace depthstill
