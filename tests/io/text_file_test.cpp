#include "engine/io/text_file.h"

#include <gtest/gtest.h>

#include "tests/io/test_files.h"

namespace depthstill {
namespace {

using namespace std::string_view_literals;
using testing_files::error_of;
using testing_files::TemporaryFolder;

TEST(text_file, encodings) {
  const TemporaryFolder folder;
  const std::string path = folder / "t.txt";
  const struct {
    std::string_view bytes, text, refused;
  } cases[] = {
      {"a\nb", "a\nb", ""},
      {"\xef\xbb\xbf"
       "a\n\xef\xbb\xbf",
       "a\n\xef\xbb\xbf", ""},     // a mark in front alone is one
      {"caf\xe9", "caf\xe9", ""},  // bytes of file names may be anything
      {"", "", ""},
      {"a\0b"sv, "a\0b"sv, ""},  // for its reader to refuse, with the line
      {"\xff\xfe"
       "a\0"sv,
       "", "UTF-16"},
      {"\xfe\xff\0a"sv, "", "UTF-16"},
      {"\xff\xfe\0\0a\0\0\0"sv, "", "UTF-32"},
      {"\0\0\xfe\xff\0\0\0a"sv, "", "UTF-32"},
      {"a\0b\0"sv, "", "UTF-16"},  // without a mark
      {"\0a\0b"sv, "", "UTF-16"},
  };
  for (const auto& c : cases) {
    write_file(path, c.bytes);
    if (c.refused.empty()) {
      EXPECT_EQ(read_text(path), c.text);
    } else {
      EXPECT_EQ(error_of([&] { read_text(path); }), path + ": expected UTF-8 text, found " + std::string(c.refused));
    }
  }
}

TEST(text_file, one_line_of_any_bytes) {
  const std::pair<std::string_view, const char*> cases[] = {
      {"plain \"text\"", "plain \"text\""},
      {"a\nb\r\tc\x7f", "a\\x0ab\\x0d\\x09c\\x7f"},
      {"\0"sv, "\\x00"},
      {"caf\xc3\xa9 \xea\xb9\x80", "caf\xc3\xa9 \xea\xb9\x80"},
      {"caf\xe9", "caf\\xe9"},                                    // not UTF-8
      {"\xc2\x85|\xe2\x80\xa8|", "\\xc2\\x85|\\xe2\\x80\\xa8|"},  // line breaks of Unicode
      {"cut \xe2\x80", "cut \\xe2\\x80"},
  };
  for (const auto& [text, line] : cases) EXPECT_EQ(one_line(text), line);
}

TEST(text_file, printable_is_cut_between_characters) {
  EXPECT_EQ(printable(std::string(60, 'a')), std::string(60, 'a'));
  EXPECT_EQ(printable(std::string(61, 'a')), std::string(60, 'a') + "...");
  EXPECT_EQ(printable(std::string(59, 'a') + "\xc3\xa9"
                                             "b"),
            std::string(59, 'a') +
                "\xc3\xa9"
                "...");
}

}  // namespace
}  // namespace depthstill
