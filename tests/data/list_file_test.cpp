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
      "b/1.png d/1.png 721.5377\na/2.png None 518.8579",             // no final newline
      "b/1.png d/1.png 721.5377\r\na/2.png None 518.8579\r\n",       // CRLF
      "b/1.png  d/1.png\t721.5377 \n a/2.png None 518.8579\n\n \n",  // blanks
      "/b/1.png /d/1.png 721.5377\n//a/2.png None 518.8579\n",       // the published NYU lists
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
    EXPECT_EQ(entries[1].line, 2);
  }
}

TEST(list_file, sorted_by_image_keeps_lines) {
  const std::vector<ListEntry> entries = parse_list("b x 1\nc x 1\na x 1\n", "l.txt", ListOrder::kByImage);
  EXPECT_EQ(entries[0].image + entries[1].image + entries[2].image, "abc");
  EXPECT_EQ(entries[0].line, 3);
}

TEST(list_file, refusals) {
  const std::pair<std::string, std::string> cases[] = {
      {"a.png d.png 7\nb.png d.png\n", "l.txt:2: expected 3 columns (image depth focal), found 2"},
      {"a.png d.png 7\n\nb.png d.png 7\n", "l.txt:2: expected 3 columns (image depth focal), found 0"},
      {"a.png d.png 7 8\n", "l.txt:1: expected 3 columns (image depth focal), found 4"},
      {"# comment\n", "l.txt:1: expected 3 columns (image depth focal), found 2"},
      {"a.png d.png seven\n", "l.txt:1: expected a focal length in pixels, found 'seven'"},
      {"a.png d.png 7px\n", "l.txt:1: expected a focal length in pixels, found '7px'"},
      {"a.png d.png -7\n", "l.txt:1: expected a focal length in pixels, found '-7'"},
      {"a.png d.png nan\n", "l.txt:1: expected a focal length in pixels, found 'nan'"},
      {"a.png / 7\n", "l.txt:1: expected a file name, found '/'"},
      {std::string("a.p\0g d.png 7\n", 14), "l.txt:1: expected text, found 'a.p\\x00g d.png 7'"},
      {"", "l.txt: expected lines 'image depth focal', found an empty list"},
      {"\n \r\n", "l.txt: expected lines 'image depth focal', found an empty list"},
  };
  for (const auto& [text, message] : cases) {
    EXPECT_EQ(error_of([&, &list = text] { parse_list(list, "l.txt"); }), message);
  }
  expect_clear(error_of([] { read_list("/nowhere/l.txt"); }), "/nowhere/l.txt: expected a readable file");
}

TEST(list_file, published_splits) {
  const auto set = testing_files::find_data_set("splits");
  if (!set) GTEST_SKIP() << "skipped: no splits";
  const std::vector<ListEntry> kitti = read_list(*set + "/eigen_test_files_with_gt.txt");
  EXPECT_EQ(kitti.size(), 697u);
  EXPECT_EQ(std::count_if(kitti.begin(), kitti.end(), [](const ListEntry& entry) { return entry.depth.empty(); }), 45);
  EXPECT_EQ(read_list(*set + "/nyudepthv2_test_files_with_gt.txt").size(), 654u);
}

}  // namespace
}  // namespace depthstill
