#include "engine/io/atomic_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>

#include "engine/io/text_file.h"
#include "tests/io/test_files.h"

namespace depthstill {
namespace {

using testing_files::error_of;
using testing_files::expect_clear;
using testing_files::TemporaryFolder;

TEST(atomic_file, replaces_only_on_commit) {
  const TemporaryFolder folder;
  write_file(folder / "a", std::string_view("old"));
  {
    AtomicFile file(folder / "a");
    file.write("half", 4);
  }
  EXPECT_EQ(read_text(folder / "a"), "old");
  write_file(folder / "a", std::string_view("new"));
  EXPECT_EQ(read_text(folder / "a"), "new");
  EXPECT_EQ(folder.file_count(), 1u);
}

TEST(atomic_file, refusals) {
  const TemporaryFolder folder;
  expect_clear(error_of([&] { write_file(folder / "no/such/a", std::string_view("x")); }), "no/such/a: ");
  expect_clear(error_of([&] { write_file(folder.path(), std::string_view("x")); }), "found a folder");
  write_file(folder / "file", std::string_view("x"));
  expect_clear(error_of([&] { make_folder(folder / "file/below"); }), "file/below: ");
  expect_clear(error_of([&] { make_folder(folder / "file"); }), "file: ");
  make_folder(folder / "a/b/c");
  make_folder(folder / "a/b/c");
  write_file(folder / "a/b/c/d", std::string_view("x"));
}

// A limit on file size fails in write() like a full disk does.
TEST(atomic_file, out_of_space_keeps_the_old_file) {
  const TemporaryFolder folder;
  write_file(folder / "a", std::string_view("old"));
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  rlimit small = before;
  small.rlim_cur = 1 << 16;
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string message = error_of([&] { write_file(folder / "a", std::string(1 << 20, 'x')); });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, SIG_DFL);
  expect_clear(message, "a: expected space to write");
  EXPECT_EQ(read_text(folder / "a"), "old");
  EXPECT_EQ(folder.file_count(), 1u);
}

TEST(text_file, lines) {
  EXPECT_EQ(split_lines(""), std::vector<std::string>{});
  EXPECT_EQ(split_lines("a"), std::vector<std::string>{"a"});
  EXPECT_EQ(split_lines("a\r\nb\n\nc\n"), (std::vector<std::string>{"a", "b", "", "c"}));
}

TEST(text_file, refusals) {
  const TemporaryFolder folder;
  write_file(folder / "a", std::string(100, 'x'));
  expect_clear(error_of([&] { read_bytes(folder / "a", 99); }), "expected at most 99 bytes, found 100");
  expect_clear(error_of([&] { read_bytes("/dev/null"); }), "found a special file");
}

}  // namespace
}  // namespace depthstill
