#include "engine/data/list_file.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/io/test_files.h"

namespace depthstill {
namespace {

using testing_files::error_of;
using testing_files::expect_clear;
using testing_files::TemporaryFolder;

TEST(list_file, accepted_forms) {
  const char* texts[] = {
      "b/1.png d/1.png 721.5377\na/2.png None 518.8579\n",
      "b/1.png d/1.png 721.5377\na/2.png None 518.8579",               // no final newline
      "b/1.png d/1.png 721.5377\r\na/2.png None 518.8579\r\n",         // CRLF
      "b/1.png  d/1.png   721.5377 \n a/2.png None 518.8579\n\n \n",   // blanks
      "b/1.png\td/1.png\t\t721.5377\n a/2.png \t None\t518.8579\t\n",  // tabs
      "\"b/1.png\" d/1.png \"721.5377\"\na/2.png None 518.8579\n",     // quotes
      "./b//1.png d/./1.png 721.5377\n././a/2.png None 518.8579\n",    // no part of the name
  };
  for (const char* text : texts) {
    const std::vector<ListEntry> entries = parse_list(text, "l.txt");
    ASSERT_EQ(entries.size(), 2u) << text;
    EXPECT_EQ(entries[0].image, "b/1.png");
    EXPECT_EQ(entries[0].depth, "d/1.png");
    EXPECT_EQ(entries[0].focal, 721.5377);
    EXPECT_EQ(entries[0].line, 1);
    EXPECT_EQ(entries[1].image, "a/2.png");
    EXPECT_EQ(entries[1].depth, "");
    EXPECT_EQ(entries[1].focal, 518.8579);
    EXPECT_EQ(entries[1].line, 2);
  }
}

TEST(list_file, columns_of_a_line) {
  const struct {
    const char* line;
    const char* image;
    const char* depth;
    double focal;
  } cases[] = {
      {"a.png d.png", "a.png", "d.png", 0},
      {"a.png None", "a.png", "", 0},
      {"a.png d.png None", "a.png", "d.png", 0},
      {"rgb/a.png depth/a.npy depth/a_mask.npy", "rgb/a.png", "depth/a.npy", 0},  // DIODE: a mask
      {"a.png d.png filled.png", "a.png", "d.png", 0},
      {"a.png d.png sub\\mask", "a.png", "d.png", 0},
      {"with blank/a b.png\td 1.png\t7.5", "with blank/a b.png", "d 1.png", 7.5},
      {"a b.png\tNone", "a b.png", "", 0},
      {"\"a b.png\" \"d 1.png\" 7", "a b.png", "d 1.png", 7},
      {"\"a\tb.png\"\t\"d 1.png\" \t7", "a\tb.png", "d 1.png", 7},
      {"\"say \"\"a\"\".png\" d.png", "say \"a\".png", "d.png", 0},
      {"5\"disk.png d.png", "5\"disk.png", "d.png", 0},
      {"\"#1.png\" d.png", "#1.png", "d.png", 0},
      {"/b/a.png //d.png 7", "/b/a.png", "/d.png", 7},  // the published NYU lists: Dataset decides what it means
      {"..\\a.png d/../e.png", "..\\a.png", "d/../e.png", 0},
      {"caf\xc3\xa9.png d\xe9.png", "caf\xc3\xa9.png", "d\xe9.png", 0},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.line);
    const ListEntry entry = parse_list(c.line, "l.txt").at(0);
    EXPECT_EQ(entry.image, c.image);
    EXPECT_EQ(entry.depth, c.depth);
    EXPECT_EQ(entry.focal, c.focal);
  }
}

TEST(list_file, comments_and_empty_lines_count) {
  const std::vector<ListEntry> entries =
      parse_list("# image depth focal\n\na.png d.png 7\n \t\r\n#\nb.png d.png\n", "l");
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].line, 3);
  EXPECT_EQ(entries[1].line, 6);
  EXPECT_EQ(parse_list(" # d.png\n", "l").at(0).image, "#");  // a comment begins a line
}

TEST(list_file, sorted_by_image_keeps_lines) {
  const std::vector<ListEntry> entries = parse_list("b x 1\n/c x 1\na x 1\n", "l.txt", ListOrder::kByImage);
  EXPECT_EQ(entries[0].image + entries[1].image + entries[2].image, "ab/c");
  EXPECT_EQ(entries[0].line, 3);
}

TEST(list_file, refusals) {
  const std::string columns = "expected 3 columns (image depth focal) or 2 (image depth), found ";
  const std::pair<std::string, std::string> cases[] = {
      {"a.png d.png 7\nb.png\n", "l.txt:2: " + columns + "1"},
      {"a.png d.png 7 8\n",
       "l.txt:1: " + columns + "4; a name with blanks needs double quotes, or tabs between the columns"},
      {"a.png,d.png,7\n", "l.txt:1: " + columns + "1; columns are separated by blanks or tabs, not by commas"},
      {"a.png 721.5\n", "l.txt:1: " + columns + "a number as depth: '721.5'"},
      {"a.png d.png\t7\n", "l.txt:1: " + columns + "a number as depth: '7'; a line with a tab is split at tabs alone"},
      {"a.png d.png seven\n", "l.txt:1: expected a focal length in pixels, found 'seven'"},
      {"a.png d.png 7px\n", "l.txt:1: expected a focal length in pixels, found '7px'"},
      {"a.png d.png 721.5px\n", "l.txt:1: expected a focal length in pixels, found '721.5px'"},
      {"a.png d.png -7\n", "l.txt:1: expected a focal length in pixels, found '-7'"},
      {"a.png d.png nan\n", "l.txt:1: expected a focal length in pixels, found 'nan'"},
      {"drive 0000000069 l\n", "l.txt:1: " + columns + "a number as depth: '0000000069'"},
      {"a.png / 7\n", "l.txt:1: expected a file name, found '/'"},
      {"./ d.png 7\n", "l.txt:1: expected a file name, found './'"},
      {"\"\" d.png\n", "l.txt:1: expected a file name, found ''"},
      {"\"a.png d.png\n", "l.txt:1: expected a closing \", found the end of the line"},
      {"\"a\"b.png d.png\n", "l.txt:1: expected a blank behind a closing \", found 'b.png d.png'"},
      {"\"a.png\" d.png\t7\n", "l.txt:1: expected a tab behind a closing \", found 'd.png\\x097'"},
      {std::string("a.p\0g d.png 7\n", 14), "l.txt:1: expected text, found 'a.p\\x00g d.png 7'"},
      {"", "l.txt: expected lines 'image depth focal', found an empty list"},
      {"\n \r\n# all\n", "l.txt: expected lines 'image depth focal', found an empty list"},
  };
  for (const auto& [text, message] : cases) {
    EXPECT_EQ(error_of([&, &list = text] { parse_list(list, "l.txt"); }), message);
  }
  expect_clear(error_of([] { read_list("/nowhere/l.txt"); }), "/nowhere/l.txt: expected a readable file");
}

TEST(list_file, all_bad_lines_are_named) {
  std::string text = "a.png d.png\n";
  for (int i = 0; i < 3; ++i) text += "bad\nb.png d.png\n";
  const std::string one = ": expected 3 columns (image depth focal) or 2 (image depth), found 1";
  EXPECT_EQ(error_of([&] { parse_list(text, "l"); }), "l:2" + one + "; l:4" + one + "; l:6" + one);
  BadLines bad;
  EXPECT_EQ(parse_list(text, "l", ListOrder::kAsWritten, &bad).size(), 4u);
  EXPECT_EQ(bad.count, 3);
  EXPECT_EQ(bad.named.at(1), "l:4" + one);
  for (int i = 0; i < 22; ++i) text += "bad\n";
  const std::string message = error_of([&] { parse_list(text, "l"); });
  EXPECT_NE(message.find("l:24" + one + " (and 5 more such lines)"), std::string::npos) << message;
  EXPECT_EQ(message.find("l:25"), std::string::npos);
}

TEST(list_file, survives_mutation) {
  const std::string text =
      "# image depth focal\r\nrgb/0.png gt/0.png 721.5\n\"a \"\"b\"\".png\"\tNone\t7e2\n/x/./y//z.png\td\\e.npy "
      "m.npy\n";
  int read = 0;
  testing_files::try_mutations({text.begin(), text.end()}, 10000, [&](const std::vector<uint8_t>& bytes) {
    for (const ListEntry& entry : parse_list({bytes.begin(), bytes.end()}, "l.txt", ListOrder::kByImage)) {
      read += !entry.image.empty() && entry.focal >= 0;
    }
  });
  EXPECT_GT(read, 1000);
}

TEST(list_file, marks_and_encodings) {
  const TemporaryFolder folder;
  const std::string path = folder / "l.txt";
  write_file(path, std::string_view("\xef\xbb\xbf# first\r\nrgb/0.png gt/0.png\r\n"));
  EXPECT_EQ(read_list(path).at(0).image, "rgb/0.png");
  write_file(path, std::string_view("\xff\xfe"
                                    "a\0 \0d\0\n\0",
                                    10));
  EXPECT_EQ(error_of([&] { read_list(path); }), path + ": expected UTF-8 text, found UTF-16");
}

TEST(list_file, published_splits) {
  const auto set = testing_files::find_data_set("splits");
  if (!set) GTEST_SKIP() << "skipped: no splits";
  const std::vector<ListEntry> kitti = read_list(*set + "/eigen_test_files_with_gt.txt");
  EXPECT_EQ(kitti.size(), 697u);
  EXPECT_EQ(std::count_if(kitti.begin(), kitti.end(), [](const ListEntry& entry) { return entry.depth.empty(); }), 45);
  EXPECT_EQ(read_list(*set + "/nyudepthv2_test_files_with_gt.txt").size(), 654u);
  const std::vector<ListEntry> two_columns = read_list(*set + "/depthanythingv2_kitti_val.txt");
  EXPECT_EQ(two_columns.size(), 652u);
  EXPECT_EQ(two_columns[0].focal, 0);
}

}  // namespace
}  // namespace depthstill
