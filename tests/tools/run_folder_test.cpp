#include "tools/run_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <optional>

#include "tests/io/test_files.h"
#include "tools/usage.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;
using namespace testing_files;

void touch(const std::string& path) { write_file(path, std::string_view("x")); }

TEST(RunFolder, BelongsToOneRunAtATime) {
  const TemporaryFolder folder;
  std::optional<RunFolder> first;
  first.emplace(folder / "run", false);
  expect_clear(error_of([&] { RunFolder(folder / "run", false); }), concat_text("in use by process ", getpid()));
  first.reset();
  EXPECT_NO_THROW(RunFolder(folder / "run", false)) << "a run that saved nothing may begin anew";
  touch(folder / "run/last.safetensors");
  EXPECT_THROW(RunFolder(folder / "run", false), UsageError);
  first.emplace(folder / "run", true);
  expect_clear(error_of([&] { RunFolder(folder / "run", true); }), "in use by process");
}

TEST(RunFolder, FoldersOfOthersAreLeftAlone) {
  const TemporaryFolder folder;
  make_folder(folder / "mine");
  for (const char* name : {"recipe.toml", "notes.txt"}) {
    touch(folder / concat_text("mine/", name));
    expect_clear(error_of([&] { RunFolder(folder / "mine", false); }), "mine: expected an empty folder");
    EXPECT_THROW(RunFolder(folder / "mine", false), UsageError);
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(folder / "mine"), {}), 2) << "no lock is left";
  touch(folder / "mine/metrics.jsonl");
  EXPECT_NO_THROW(RunFolder(folder / "mine", false)) << "a run of a version without locks, which saved nothing";
  expect_clear(error_of([&] { RunFolder(folder / "none", true); }), "none: expected last.safetensors");
  EXPECT_FALSE(fs::exists(folder / "none"));
  touch(folder / "file");
  expect_clear(error_of([&] { RunFolder(folder / "file", false); }), "file: ");
  make_folder(folder / "linked");
  fs::create_symlink("../file", folder / "linked/depthstill.lock");
  expect_clear(error_of([&] { RunFolder(folder / "linked", false); }), "depthstill.lock: expected a file");
}

}  // namespace
}  // namespace depthstill
