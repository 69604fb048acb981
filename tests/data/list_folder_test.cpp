#include "engine/data/list_folder.h"

#include <gtest/gtest.h>

#include "tests/io/test_files.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;
using testing_files::error_of;
using testing_files::TemporaryFolder;

// root/images/a.png, root/maps/m.png, root/top.png and, beside the root, other/x.png.
class ListFolders : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"root/images/a.png", "root/maps/m.png", "root/top.png", "other/x.png"}) touch(name);
    root_ = folder_ / "root";
  }
  void touch(const std::string& name) const {
    make_folder(fs::path(folder_ / name).parent_path().string());
    testing_files::write_quickly(folder_ / name, {});
  }
  // The full path of what a list means, or the message.
  std::string found(const ListFolder& folder, const std::string& written) const {
    std::string path;
    const std::string message = error_of([&] { path = folder.path(folder.place(written)); });
    return message.empty() ? path : message;
  }
  std::string outside(const std::string& found) const {
    return "expected a path below " + root_ + ", found " + found + " (--allow-outside reads it)";
  }

  TemporaryFolder folder_;
  std::string root_;
};

TEST_F(ListFolders, PathsStartFromTheFolder) {
  EXPECT_EQ(found({root_, "", false}, "images/a.png"), root_ + "/images/a.png");
  EXPECT_EQ(found({root_, "images", false}, "a.png"), root_ + "/images/a.png");
  EXPECT_EQ(found({root_, "images", false}, "none.png"), root_ + "/images/none.png");  // whoever opens it refuses
  EXPECT_EQ(found({root_, "images", false}, "../maps/m.png"), root_ + "/images/../maps/m.png");
}

TEST_F(ListFolders, ALeadingSlashIsBelowTheRootThenAsWritten) {
  const ListFolder below(root_, "", false), images(root_, "images", false);
  EXPECT_EQ(below.place("/images/a.png").name, "images/a.png");  // the lists of BTS
  EXPECT_EQ(below.place("/images/none.png").name, "images/none.png");
  EXPECT_EQ(below.place(root_ + "/images/a.png").name, "images/a.png");
  EXPECT_EQ(images.place(root_ + "/images/a.png").name, "a.png");
  EXPECT_EQ(images.place(root_ + "/top.png").name, root_ + "/top.png");
  EXPECT_EQ(found(images, root_ + "/top.png"), root_ + "/top.png");
  fs::create_symlink(root_, folder_ / "link");
  EXPECT_EQ(below.place(folder_ / "link/images/a.png").name, "images/a.png");
  EXPECT_EQ(ListFolder(folder_ / "link", "", false).place(root_ + "/images/a.png").name, "images/a.png");
  touch("root" + root_ + "/images/a.png");
  EXPECT_EQ(below.place(root_ + "/images/a.png").name,
            root_.substr(1) + "/images/a.png");  // what lies below comes first
}

TEST_F(ListFolders, EveryPlaceThatWasTriedIsNamed) {
  const ListFolder below(root_, "", false);
  EXPECT_EQ(found(below, "/data/a.png"), "expected a file at " + root_ + "/data/a.png or /data/a.png, found none");
  EXPECT_EQ(found(below, "b\\a.png"), "expected a file at " + root_ + "/b/a.png or " + root_ + "/b\\a.png, found none");
  EXPECT_EQ(found(below, root_ + "/none.png"),
            "expected a file at " + root_ + "/none.png or " + root_ + root_ + "/none.png, found none");
}

TEST_F(ListFolders, BackslashesSeparateUnlessTheyAreInAName) {
  const ListFolder below(root_, "", false);
  EXPECT_EQ(below.place("images\\a.png").name, "images/a.png");
  EXPECT_EQ(below.place(".\\images\\\\a.png").name, "images/a.png");
  EXPECT_EQ(below.place("\\images\\a.png").name, "images/a.png");
  touch("root/images\\a.png");
  EXPECT_EQ(below.place("images\\a.png").name, "images\\a.png");
  EXPECT_EQ(found(below, "..\\other\\x.png"), outside("..\\other\\x.png"));
}

TEST_F(ListFolders, NothingOutsideOfTheRoot) {
  const ListFolder below(root_, "", false), images(root_, "images", false);
  const std::string x = folder_ / "other/x.png";
  for (const std::string& path : {std::string("../other/x.png"), std::string("images/../../other/x.png"), x,
                                  std::string("/../other/x.png"), root_ + "/../other/x.png"}) {
    EXPECT_EQ(found(below, path), outside(path));
  }
  EXPECT_EQ(found(images, "../../other/x.png"), outside("../../other/x.png"));
  EXPECT_EQ(found(below, "../none.png"), outside("../none.png"));
  touch("root2/x.png");
  EXPECT_EQ(found(below, "../root2/x.png"), outside("../root2/x.png"));  // a name that only begins like the root's

  fs::create_symlink("../other", root_ + "/there");
  fs::create_symlink(x, root_ + "/x.png");
  for (const char* name : {"there/x.png", "x.png", "images/../x.png"}) {
    EXPECT_EQ(found(below, name), outside(root_ + "/" + name + ", which leads to " + x));
  }
  fs::create_symlink("../maps/m.png", root_ + "/images/m.png");
  EXPECT_EQ(found(below, "images/m.png"), root_ + "/images/m.png");  // a link within the root
}

TEST_F(ListFolders, OutsideIfItIsAllowed) {
  const ListFolder below(root_, "", true);
  const std::string x = folder_ / "other/x.png";
  EXPECT_EQ(found(below, "../other/x.png"), root_ + "/../other/x.png");
  EXPECT_EQ(found(below, x), x);
  fs::create_symlink("../other", root_ + "/there");
  EXPECT_EQ(found(below, "there/x.png"), root_ + "/there/x.png");
}

// What a recipe or an option names itself may lie anywhere.
TEST_F(ListFolders, TheFolderItselfMayLieElsewhere) {
  const std::string other = folder_ / "other";
  EXPECT_EQ(found({root_, other, false}, "x.png"), other + "/x.png");
  EXPECT_EQ(found({root_, "../other", false}, "x.png"), root_ + "/../other/x.png");
  EXPECT_EQ(found({root_, other, false}, "../root2/x.png"), outside("../root2/x.png"));
  fs::create_symlink("../other", root_ + "/there");
  EXPECT_EQ(found({root_, "there", false}, "x.png"), root_ + "/there/x.png");
}

}  // namespace
}  // namespace depthstill
