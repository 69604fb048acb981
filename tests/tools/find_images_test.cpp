#include "tools/find_images.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "tests/io/test_files.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;
using namespace testing_files;

class FindImages : public testing::Test {
 protected:
  void make(const std::string& name) const {
    make_folder(fs::path(folder_ / name).parent_path().string());
    write_file(folder_ / name, std::string_view("x"));
  }
  std::vector<std::string> names(const std::vector<std::string>& inputs, const std::string& out = "out") const {
    std::vector<std::string> paths, found;
    for (const std::string& input : inputs) paths.push_back(folder_ / input);
    for (const FoundImage& image : find_images(paths, folder_ / out).images) found.push_back(image.name);
    return found;
  }
  using Names = std::vector<std::string>;
  TemporaryFolder folder_;
};

TEST_F(FindImages, FoldersKeepTheirStructureAndTwinsTheirExtension) {
  for (const char* name :
       {"in/b.JPG", "in/a.png", "in/below/c.jpeg", "in/a.jpg", "in/v1.2.png", "in/._a.png", "single.png"})
    make(name);
  EXPECT_EQ(names({"in", "single.png"}), (Names{"a_jpg", "a_png", "b", "below/c", "v1.2", "single"}));
  EXPECT_EQ(names({"in", "in", "in/b.JPG", "in/./b.JPG"}), names({"in"})) << "an image counts once";
}

TEST_F(FindImages, LinkedFoldersAreSearchedOnce) {
  for (const char* name : {"in/z/a.png", "far/b.png", "photos/c.png"}) make(name);
  fs::create_directory_symlink("z", folder_ / "in/alias");  // it comes before the real folder's name
  fs::create_directory_symlink("../far", folder_ / "in/far");
  fs::create_directory_symlink("../in", folder_ / "far/loop");
  fs::create_directory_symlink("../../far", folder_ / "in/z/far");
  fs::create_symlink("../photos/c.png", folder_ / "in/c.png");
  EXPECT_EQ(names({"in"}), (Names{"c", "z/a", "far/b"}));
  const FoundImages found = find_images({folder_ / "in"}, folder_ / "out");
  EXPECT_EQ(found.images.back().path, folder_ / "in/far/b.png");
}

TEST_F(FindImages, TheOutputFolderIsNotSearched) {
  for (const char* name : {"in/a.jpg", "in/depth/a.png", "in/depth/a_colour.png", "far/depth/x.png"}) make(name);
  fs::create_directory_symlink("../in/depth", folder_ / "far/way");
  EXPECT_EQ(names({"in"}, "in/depth"), Names{"a"});
  EXPECT_EQ(names({"in"}, "far/way"), Names{"a"}) << "another spelling";
  EXPECT_EQ(names({"in/depth"}, "in/depth"), (Names{"a", "a_colour"})) << "unless it is asked for";
  // Results beside the images get no other name in the next run, so that they are seen to be in the way.
  make("in/a.png");
  EXPECT_EQ(names({"in"}, "in"), (Names{"a", "a", "depth/a", "depth/a_colour"}));
}

TEST_F(FindImages, WhatIsLeftOutIsCounted) {
  for (const char* name : {"in/a.png", "in/s.tif", "in/t.TIF", "in/x/w.webp", "in/notes", "in/.hidden"}) make(name);
  fs::create_symlink("nowhere.png", folder_ / "in/gone.png");
  ASSERT_EQ(mkfifo((folder_ / "in/pipe.png").c_str(), 0600), 0);
  const FoundImages found = find_images({folder_ / "in"}, "");
  ASSERT_EQ(found.images.size(), 1u);
  EXPECT_EQ(left_out_text(found), "2 .tif, 1 .webp, 1 broken link(s), 1 special file(s), 1 without extension");
  expect_clear(error_of([&] { find_images({folder_ / "in/x"}, ""); }), "in/x: expected PNG or JPEG images");
}

}  // namespace
}  // namespace depthstill
