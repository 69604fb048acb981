// TOML, and recipes made of it.
#include <map>

#include "tests/fuzz/target.h"
#include "tools/recipe.h"
#include "tools/toml_document.h"

namespace depthstill::fuzz {
namespace {

// What is written of a value reads back as the same one.
void check_values(const std::vector<TomlEntry>& entries) {
  std::string text;
  std::map<std::string, TomlValue> values;
  for (const TomlEntry& entry : entries) {
    expect(entry.where.starts_with("recipe:"), "expected a line of the recipe, found ", entry.where);
    if (std::holds_alternative<std::monostate>(entry.value)) continue;
    const std::string key = concat_text('v', values.size());
    text += concat_text(key, " = ", format_toml(entry.value), '\n');
    values.emplace(key, entry.value);
  }
  for (const TomlEntry& entry : parse_toml(text, "written")) {
    expect(values.at(entry.key) == entry.value, "expected ", format_toml(values.at(entry.key)), " again, found ",
           format_toml(entry.value));
  }
}

void read(Input input) {
  const std::string text(input.begin(), input.end());
  check_values(parse_toml(text, "recipe"));
  static const InputFile file("recipe.toml"), base("base.toml");
  file.write(input);
  load_recipe(file.path());
}

}  // namespace

Target toml_target() {
  using namespace std::string_view_literals;
  return {"toml",
          read,
          {"inherit = \"base.toml\"\n"sv,
           "inherit = \"recipe.toml\"\n"sv,
           "[loss]\n"sv,
           "[data.train]\n"sv,
           "[[a]]\n"sv,
           "name = "sv,
           "\"\"\""sv,
           "'''"sv,
           "{a = 1}"sv,
           "[1, 2]"sv,
           "[["sv,
           "]]"sv,
           "1979-05-27T07:32:00Z"sv,
           "07:32"sv,
           "0x7fffffffffffffff"sv,
           "9223372036854775808"sv,
           "1e999"sv,
           "inf"sv,
           "nan"sv,
           "-0.0"sv,
           "1_000"sv,
           "0b1"sv,
           "true"sv,
           "\\u0000"sv,
           "\\n"sv,
           "\\UFFFFFFFF"sv,
           "\xc3\xa9"sv,
           "\xe2\x80\xa8"sv,
           "~7e~"sv,
           "~"sv,
           "#"sv,
           "a.b.c = "sv,
           "\"\\n\" = 1\n"sv,
           "\"\" = 1\n"sv,
           "\r\n"sv,
           "\xef\xbb\xbf"sv,
           "epochs = 0\n"sv,
           "= [\"x\\ny\"]"sv}};
}

}  // namespace depthstill::fuzz
