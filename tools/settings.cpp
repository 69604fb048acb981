#include "tools/settings.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "engine/io/text_file.h"

namespace depthstill {
namespace {

std::string describe_range(Range range) {
  if (range.low == kPositive.low && std::isinf(range.high)) return "greater than 0";
  if (std::isinf(range.high)) return concat_text("at least ", range.low);
  if (std::isinf(range.low)) return concat_text("at most ", range.high);
  return concat_text("from ", range.low, " to ", range.high);
}

void check_range(double value, Range range) {
  check(value >= range.low && value <= range.high, "expected a value ", describe_range(range), ", found ", value);
}

size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

std::string last_part(const std::string& key) { return key.substr(key.rfind('.') + 1); }
std::string table_of(const std::string& key) {
  const size_t dot = key.rfind('.');
  return dot == std::string::npos ? "" : key.substr(0, dot);
}

}  // namespace

namespace detail {

int64_t integer_of(const TomlValue& value, Range range) {
  const auto* integer = std::get_if<int64_t>(&value);
  check(integer != nullptr, "expected an integer, found ", describe_type(value), " ", format_toml(value));
  check_range(static_cast<double>(*integer), range);
  return *integer;
}

double number_of(const TomlValue& value, Range range) {
  double number = 0;
  if (const auto* integer = std::get_if<int64_t>(&value)) {
    number = static_cast<double>(*integer);
  } else if (const auto* real = std::get_if<double>(&value)) {
    number = *real;
  } else {
    fail("expected a number, found ", describe_type(value), " ", format_toml(value));
  }
  check_range(number, range);
  return number;
}

const std::string& text_of(const TomlValue& value) {
  const auto* text = std::get_if<std::string>(&value);
  check(text != nullptr, "expected a string, found ", describe_type(value), " ", format_toml(value));
  return *text;
}

double shortest(float value) {
  std::array<char, 32> text{};
  const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), value);
  double result = 0;
  std::from_chars(text.data(), end, result);
  return result;
}

}  // namespace detail

void Settings::custom(std::string key, std::function<void(const TomlValue&)> set, std::function<TomlValue()> get,
                      std::string doc) {
  settings_.push_back({std::move(key), std::move(doc), std::move(set), std::move(get)});
}

void Settings::flag(std::string key, bool& target, std::string doc) {
  custom(
      std::move(key),
      [&target](const TomlValue& value) {
        const bool* flag = std::get_if<bool>(&value);
        check(flag != nullptr, "expected true or false, found ", describe_type(value), " ", format_toml(value));
        target = *flag;
      },
      [&target] { return TomlValue(target); }, std::move(doc));
}

void Settings::text(std::string key, std::string& target, std::string doc) {
  custom(
      std::move(key), [&target](const TomlValue& value) { target = detail::text_of(value); },
      [&target] { return TomlValue(target); }, std::move(doc));
}

void Settings::numbers(std::string key, std::vector<double>& target, Range range, std::string doc) {
  const auto set = [&target, range](const TomlValue& value) {
    const auto* array = std::get_if<TomlArray>(&value);
    check(array != nullptr, "expected an array of numbers, found ", describe_type(value), " ", format_toml(value));
    std::vector<double> result;
    for (const TomlScalar& scalar : *array) {
      result.push_back(std::visit([&](const auto& v) { return detail::number_of(TomlValue(v), range); }, scalar));
    }
    target = std::move(result);
  };
  const auto get = [&target] {
    TomlArray array;
    for (const double number : target) array.emplace_back(number);
    return TomlValue(array);
  };
  custom(std::move(key), set, get, std::move(doc));
}

void Settings::integers(std::string key, std::vector<int64_t>& target, Range range, std::string doc) {
  const auto set = [&target, range](const TomlValue& value) {
    const auto* array = std::get_if<TomlArray>(&value);
    check(array != nullptr, "expected an array of integers, found ", describe_type(value), " ", format_toml(value));
    std::vector<int64_t> result;
    for (const TomlScalar& scalar : *array) {
      result.push_back(std::visit([&](const auto& v) { return detail::integer_of(TomlValue(v), range); }, scalar));
    }
    target = std::move(result);
  };
  const auto get = [&target] { return TomlValue(TomlArray(target.begin(), target.end())); };
  custom(std::move(key), set, get, std::move(doc));
}

void Settings::texts(std::string key, std::vector<std::string>& target, std::string doc) {
  const auto set = [&target](const TomlValue& value) {
    if (const auto* one = std::get_if<std::string>(&value)) {
      target = {*one};
      return;
    }
    const auto* array = std::get_if<TomlArray>(&value);
    check(array != nullptr, "expected a string or an array of strings, found ", describe_type(value));
    std::vector<std::string> result;
    for (const TomlScalar& scalar : *array) {
      result.push_back(std::visit([](const auto& v) { return detail::text_of(TomlValue(v)); }, scalar));
    }
    target = std::move(result);
  };
  const auto get = [&target] { return TomlValue(TomlArray(target.begin(), target.end())); };
  custom(std::move(key), set, get, std::move(doc));
}

const Settings::Setting* Settings::find(const std::string& key) const {
  const auto at = std::find_if(settings_.begin(), settings_.end(), [&](const Setting& s) { return s.key == key; });
  return at == settings_.end() ? nullptr : &*at;
}

std::string Settings::hint(const std::string& key) const {
  const Setting* best = nullptr;
  size_t least = std::max<size_t>(2, key.size() / 3) + 1;
  for (const Setting& setting : settings_) {
    size_t distance = edit_distance(key, setting.key);
    if (last_part(key) == last_part(setting.key)) distance = std::min<size_t>(distance, 2);  // right key, wrong table
    if (distance < least) {
      least = distance;
      best = &setting;
    }
  }
  return best ? ", did you mean '" + best->key + "'?" : "";
}

void Settings::apply(const TomlEntry& entry) const {
  if (std::holds_alternative<std::monostate>(entry.value)) {
    const bool table = std::any_of(settings_.begin(), settings_.end(),
                                   [&](const Setting& s) { return s.key.starts_with(entry.key + '.'); });
    if (table) return;
  }
  const Setting* setting = find(entry.key);
  check(setting != nullptr, entry.where, ": unknown key '", one_line(entry.key), "'", hint(entry.key));
  try {
    setting->set(entry.value);
  } catch (const Error& error) {
    fail(entry.where, ": '", entry.key, "': ", one_line(error.what()));  // it may quote the value
  }
}

TomlEntry Settings::parse_override(const std::string& assignment) const {
  const size_t equals = assignment.find('=');
  const std::string where = "--set " + one_line(assignment);
  check(equals != std::string::npos && equals > 0, where, ": expected key=value");
  const std::string key = assignment.substr(0, equals), value = assignment.substr(equals + 1);
  check(find(key) != nullptr, where, ": unknown key '", one_line(key), "'", hint(key));
  std::vector<TomlEntry> entries;
  try {
    entries = parse_toml("value = " + value, "--set");
  } catch (const Error&) {
    // A bare word such as a model's name or a path, or nothing; anything that tries to be more must be TOML.
    const bool bare = value.find_first_of("\"'[]{}\n\r#") == std::string::npos;
    check(bare, where, ": the value is not TOML");
    entries = {{"value", TomlValue(value), where}};
  }
  check(entries.size() == 1 && entries[0].key == "value", where, ": expected one value");
  return {key, entries[0].value, where};
}

TomlValue Settings::value(const std::string& key) const {
  const Setting* setting = find(key);
  check(setting != nullptr, "unknown setting '", key, "'");
  return setting->get();
}

std::vector<std::string> Settings::keys() const {
  std::vector<std::string> keys;
  for (const Setting& setting : settings_) keys.push_back(setting.key);
  return keys;
}

std::string Settings::print(const std::function<bool(const std::string&, const TomlValue&)>& implied) const {
  std::string text, table;
  for (const Setting& setting : settings_) {
    if (table_of(setting.key) != table) {
      table = table_of(setting.key);
      text += (text.empty() ? "[" : "\n[") + table + "]\n";
    }
    const TomlValue value = setting.get();
    std::string line = last_part(setting.key) + " = " + format_toml(value);
    if (implied && implied(setting.key, value)) line.insert(0, "# ");
    line.resize(std::max<size_t>(line.size() + 2, 36), ' ');
    text += line + "# " + setting.doc + '\n';
  }
  return text;
}

}  // namespace depthstill
