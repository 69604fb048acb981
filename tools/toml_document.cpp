#include "tools/toml_document.h"

#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace {
[[noreturn]] void toml_assertion_failed() { depthstill::fail("not valid TOML"); }
}  // namespace

// toml++ 3.3 states its preconditions as asserts, which malformed bytes can reach: here they throw in every build (with
// NDEBUG they would turn into undefined behaviour). Bytes that are not plain text are refused before it sees them.
#undef NDEBUG
#define TOML_ASSERT(expr) ((expr) ? static_cast<void>(0) : toml_assertion_failed())
#define TOML_EXCEPTIONS 1
#define TOML_HEADER_ONLY 1

#include <toml++/toml.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace depthstill {
namespace {

constexpr size_t kMaxBytes = size_t{1} << 18;  // a recipe is a page of text
constexpr size_t kMaxLine = 4096;              // bounds the depth of a dotted key, and so of the parser's recursion

void check_text(std::string_view text, const std::string& file) {
  check(text.size() <= kMaxBytes, file, ": ", text.size(), " bytes, expected a recipe of at most ", kMaxBytes);
  int line = 1;
  size_t line_begin = 0;
  for (size_t at = 0; at < text.size();) {
    const auto byte = static_cast<unsigned char>(text[at]);
    const size_t length = utf8_length(text, at);
    check(length > 0, file, ":", line, ": not UTF-8 text (byte ", int{byte}, ")");
    const bool control = (byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r') || byte == 0x7f;
    check(!control, file, ":", line, ": control character (byte ", int{byte}, "), expected plain text");
    check(at - line_begin < kMaxLine, file, ":", line, ": longer than ", kMaxLine, " bytes");
    at += length;
    if (byte == '\n') {
      ++line;
      line_begin = at;
    }
  }
}

// toml++ 3.3 is undefined for many letters above ASCII where it does not expect them, so it sees none: "~c3~~a9~"
// stands for the two bytes of an accented e, and "~7e~" for the tilde.
std::string to_ascii(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80 && c != '~') {
      result += c;
    } else {
      result += {'~', kDigits[byte >> 4], kDigits[byte & 15u], '~'};
    }
  }
  return result;
}

std::string from_ascii(std::string_view text) {
  std::string result;
  for (size_t at = 0; at < text.size(); ++at) {
    unsigned byte = 0;
    const bool coded = text[at] == '~' && at + 3 < text.size() && text[at + 3] == '~' &&
                       std::from_chars(&text[at + 1], &text[at + 3], byte, 16).ptr == &text[at + 3];
    result += coded ? static_cast<char>(byte) : text[at];
    at += coded ? 3 : 0;
  }
  return result;
}

// toml++'s assertions carry no position: this finds the first line with which the text fails.
int failing_line(std::string_view text) {
  int line = 0;
  for (size_t end = 0; end < text.size(); ++line) {
    end = std::min(text.find('\n', end), text.size() - 1) + 1;
    try {
      static_cast<void>(toml::parse(text.substr(0, end)));
    } catch (const toml::parse_error&) {  // the text is perhaps only cut short
    } catch (const Error&) {
      return line + 1;
    }
  }
  return line;
}

class Flattener {
 public:
  explicit Flattener(const std::string& file) : file_(file) {}

  void table(const toml::table& table, const std::string& prefix) {
    for (const auto& [key, node] : table) {
      const std::string path = prefix.empty() ? from_ascii(key.str()) : prefix + '.' + from_ascii(key.str());
      const std::string where = concat_text(file_, ":", node.source().begin.line);
      if (const toml::table* inner = node.as_table()) {
        entries.push_back({path, std::monostate{}, where});
        this->table(*inner, path);
      } else if (const toml::array* array = node.as_array()) {
        TomlArray values;
        for (const toml::node& element : *array) values.push_back(scalar(element, path, where));
        entries.push_back({path, std::move(values), where});
      } else {
        TomlValue value = std::visit([](auto v) { return TomlValue(std::move(v)); }, scalar(node, path, where));
        entries.push_back({path, std::move(value), where});
      }
    }
  }

  std::vector<TomlEntry> entries;

 private:
  static TomlScalar scalar(const toml::node& node, const std::string& path, const std::string& where) {
    if (const auto* v = node.as_boolean()) return v->get();
    if (const auto* v = node.as_integer()) return v->get();
    if (const auto* v = node.as_string()) return from_ascii(v->get());
    if (const auto* v = node.as_floating_point()) {
      check(std::isfinite(v->get()), where, ": '", one_line(path), "' is ", v->get(), ", expected a finite number");
      return v->get();
    }
    fail(where, ": '", one_line(path), "': expected a boolean, a number, a string or a flat array of these");
  }

  const std::string& file_;
};

std::string number_text(double value) {
  std::array<char, 40> text{};
  const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), value);
  std::string result(text.data(), end);
  if (result.find_first_of(".en") == std::string::npos) result += ".0";
  return result;
}

}  // namespace

std::string toml_quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (c == '\n' || c == '\t' || c == '\r') {
      result += '\\';
      result += c == '\n' ? 'n' : c == '\t' ? 't' : 'r';
    } else if (const auto byte = static_cast<unsigned char>(c); byte < 0x20 || byte == 0x7f) {
      constexpr const char* digits = "0123456789abcdef";
      result += {'\\', 'u', '0', '0', digits[byte >> 4], digits[byte & 15]};
    } else {
      result += c;
    }
  }
  return result + '"';
}

std::vector<TomlEntry> parse_toml(std::string_view text, const std::string& file) {
  check_text(text, file);
  const std::string ascii = to_ascii(text);
  toml::table document;
  try {
    document = toml::parse(ascii, file);
  } catch (const toml::parse_error& error) {
    fail(file, ":", error.source().begin.line, ": ", one_line(from_ascii(error.description())));
  } catch (const Error& error) {
    fail(file, ":", failing_line(ascii), ": ", error.what());
  }
  Flattener flattener(file);
  flattener.table(document, "");
  return std::move(flattener.entries);
}

const char* describe_type(const TomlValue& value) {
  constexpr std::array names = {"a table", "a boolean", "an integer", "a number", "a string", "an array"};
  return names[value.index()];
}

std::string format_toml(const TomlValue& value) {
  struct Visitor {
    std::string operator()(std::monostate) const { return "{}"; }
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(int64_t v) const { return std::to_string(v); }
    std::string operator()(double v) const { return number_text(v); }
    std::string operator()(const std::string& v) const { return toml_quoted(v); }
    std::string operator()(const TomlArray& array) const {
      std::string text = "[";
      for (size_t i = 0; i < array.size(); ++i) {
        text += i ? ", " : "";
        text += std::visit(*this, array[i]);
      }
      return text + ']';
    }
  };
  return std::visit(Visitor{}, value);
}

std::vector<std::string> texts_of(const TomlEntry& entry) {
  const auto* array = std::get_if<TomlArray>(&entry.value);
  check(array != nullptr, entry.where, ": '", entry.key, "': expected an array, found ", describe_type(entry.value));
  std::vector<std::string> texts;
  for (const TomlScalar& scalar : *array) {
    const auto* text = std::get_if<std::string>(&scalar);
    check(text != nullptr, entry.where, ": '", entry.key, "': expected strings");
    texts.push_back(*text);
  }
  return texts;
}

}  // namespace depthstill
