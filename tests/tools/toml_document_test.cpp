#include "tools/toml_document.h"

#include <gtest/gtest.h>

#include <random>

#include "kernels/core/error.h"

namespace depthstill {
namespace {

std::string message_of(const std::string& text) {
  try {
    parse_toml(text, "f.toml");
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(TomlDocument, FlattensTablesWithLines) {
  const auto entries = parse_toml("a = 1\n[b]\nc = 'x'\n[b.d]\ne = [1, 2.5]\nf = true\n", "f.toml");
  std::string text;
  for (const TomlEntry& e : entries) text += e.where + ' ' + e.key + ' ' + format_toml(e.value) + '\n';
  EXPECT_EQ(text,
            "f.toml:1 a 1\nf.toml:2 b {}\nf.toml:3 b.c \"x\"\nf.toml:4 b.d {}\nf.toml:5 b.d.e [1, 2.5]\n"
            "f.toml:6 b.d.f true\n");
}

TEST(TomlDocument, RefusesWithFileAndLine) {
  const struct {
    const char* what;
    std::string text;
    const char* expected;
  } cases[] = {
      {"assertion of the parser", std::string("[\0tr", 4), "f.toml:1: control character"},
      {"letter above ASCII as a key", "a = 1\n\xc3\xa9 = 2\n", "f.toml:2:"},
      {"not UTF-8", "a = \"\xff\"\n", "f.toml:1: not UTF-8"},
      {"overlong UTF-8", "# \xc0\xaf\n", "f.toml:1: not UTF-8"},
      {"surrogate", "# \xed\xa0\x80\n", "f.toml:1: not UTF-8"},
      {"truncated sequence", "a = 1 # \xe2\x82", "f.toml:1: not UTF-8"},
      {"missing value", "a = 1\nb =\n", "f.toml:2: "},
      {"unclosed string", "a = 'x\n", "f.toml:1: "},
      {"duplicate key", "a = 1\na = 2\n", "f.toml:2: "},
      {"date", "\na = 1979-05-27\n", "f.toml:2: 'a'"},
      {"infinity", "a = inf\n", "f.toml:1: 'a'"},
      {"nested array", "a = [[1]]\n", "f.toml:1: 'a'"},
      {"too long a line", "a." + std::string(5000, 'a') + " = 1\n", "f.toml:1: longer than"},
      {"too large", std::string(300000, '\n'), "f.toml: 300000 bytes"},
  };
  for (const auto& c : cases)
    EXPECT_EQ(message_of(c.text).rfind(c.expected, 0), 0u) << c.what << ": " << message_of(c.text);
}

TEST(TomlDocument, MessagesAreOneLine) {
  EXPECT_EQ(message_of("a = tr\n"), "f.toml:1: Error while parsing boolean: expected 'true', saw 'tr\\x0a'");
  for (const char* text :
       {"a = 'x\n", "a\nb = 1\n", "\"a\\nb\" = [[1]]\n", "\"a\\nb\" = inf\n", "a = 0x\r\n", "[a\r\n"}) {
    const std::string message = message_of(text);
    EXPECT_EQ(message.rfind("f.toml:1: ", 0), 0u) << text << message;
    EXPECT_EQ(message.find_first_of("\n\r"), std::string::npos) << text << message;
  }
}

TEST(TomlDocument, TextMayHoldAnyLanguage) {
  const auto entries =
      parse_toml("# caf\xc3\xa9\npath = \"\xea\xb9\x80/\xf0\x9f\x98\x80\"\nq = '''\n\xc3\xa9'''\n", "f");
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(std::get<std::string>(entries[0].value), "\xea\xb9\x80/\xf0\x9f\x98\x80");
}

TEST(TomlDocument, ValuesReadBackAsPrinted) {
  for (const TomlValue& value :
       {TomlValue(0.1), TomlValue(1e-16), TomlValue(80.0), TomlValue(int64_t{-7}),
        TomlValue(std::string("a\"b\\c\nd\te\x01\x7f")), TomlValue(TomlArray{0.5, int64_t{2}})}) {
    const auto entries = parse_toml("v = " + format_toml(value), "f");
    EXPECT_EQ(entries.at(0).value, value) << format_toml(value);
  }
}

// Neither crashes nor hangs on damaged recipes; every refusal names the file. (Undefined behaviour shows in the
// sanitizer builds.)
TEST(TomlDocument, SurvivesMutatedRecipes) {
  const std::string seed =
      "inherit = \"base.toml\"\n[model]\nname = 'mobilenet_unet' # caf\xc3\xa9\nbins = 257\nrange = [1e-3, 80.0]\n"
      "d = 1979-05-27T07:32:00Z\n[data.train]\nlist = \"\"\"a\nb\"\"\"\nx = +inf\nt = {a = 1, b = {c = "
      "0x1F}}\n[[u]]\nv=1_0\n";
  constexpr char kBytes[] = "[]{}=.\"'#\\\n\r\t ,+-_0123456789eExobTZ:/naniftru\0\x01\x7f\x80\xa9\xc3\xff";
  const std::string alphabet(kBytes, sizeof(kBytes) - 1);
  std::mt19937 random(7);
  const auto below = [&](size_t n) { return n == 0 ? 0 : random() % n; };
  int accepted = 0;
  for (int round = 0; round < 30000; ++round) {
    std::string text = round % 3 ? seed.substr(0, below(seed.size() + 1)) : seed.substr(below(seed.size()));
    for (size_t edits = 1 + below(4); edits > 0; --edits) {
      const size_t at = below(text.size());
      if (below(3) == 0) text.insert(at, seed.substr(below(seed.size()), below(16)));
      if (text.empty() || below(2) == 0)
        text.insert(at, 1, alphabet[below(alphabet.size())]);
      else
        text[at] = alphabet[below(alphabet.size())];
    }
    const std::string message = message_of(text);
    accepted += message == "accepted";
    ASSERT_TRUE(message == "accepted" || message.rfind("f.toml", 0) == 0) << message;
    ASSERT_EQ(message.find_first_of("\n\r"), std::string::npos) << message;
  }
  EXPECT_GT(accepted, 0);
}

}  // namespace
}  // namespace depthstill
