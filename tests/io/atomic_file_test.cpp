#include "engine/io/atomic_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <thread>

#include "engine/io/text_file.h"
#include "tests/io/test_files.h"

namespace depthstill {
namespace {

namespace fs = std::filesystem;
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

fs::perms mode_of(const std::string& path) { return fs::status(path).permissions(); }

TEST(atomic_file, keeps_mode_and_other_names_of_the_file) {
  const TemporaryFolder folder;
  write_file(folder / "a", std::string_view("old"));
  for (const fs::perms mode : {fs::perms(0600), fs::perms(0666)}) {  // the umask would take 0666 apart
    fs::permissions(folder / "a", mode);
    write_file(folder / "a", std::string_view("new"));
    EXPECT_EQ(mode_of(folder / "a"), mode);
  }
  fs::create_hard_link(folder / "a", folder / "other");
  write_file(folder / "a", std::string_view("newer"));
  EXPECT_EQ(read_text(folder / "other"), "new");
  if (geteuid() == 0) return;  // root may write to anything
  fs::permissions(folder / "a", fs::perms(0400));
  expect_clear(error_of([&] { write_file(folder / "a", std::string_view("x")); }), "a: expected a writable file");
}

TEST(atomic_file, follows_links) {
  const TemporaryFolder folder;
  make_folder(folder / "there/below");
  fs::create_directory_symlink("there/below", folder / "way");
  fs::create_symlink("../file", folder / "there/below/second");
  fs::create_symlink("way/second", folder / "first");
  for (const char* text : {"made", "replaced"}) {  // first the link leads to nothing
    write_file(folder / "first", std::string_view(text));
    EXPECT_EQ(read_text(folder / "there/file"), text);
    EXPECT_TRUE(fs::is_symlink(folder / "first") && fs::is_symlink(folder / "there/below/second"));
  }
  EXPECT_EQ(folder.file_count(), 3u) << "no temporary file stays";
  fs::create_symlink("circle", folder / "circle");
  expect_clear(error_of([&] { write_file(folder / "circle", std::string_view("x")); }), "circle: ");
}

TEST(atomic_file, writes_to_devices_and_pipes) {
  const TemporaryFolder folder;
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  fs::create_symlink("pipe", folder / "link");
  std::string received;
  std::thread reader([&] {
    char bytes[16];
    const int descriptor = open((folder / "pipe").c_str(), O_RDONLY);
    for (ssize_t n = 0; (n = read(descriptor, bytes, sizeof(bytes))) > 0;) received.append(bytes, bytes + n);
    close(descriptor);
  });
  write_file(folder / "link", std::string_view("through the pipe, not over it"));
  reader.join();
  EXPECT_EQ(received, "through the pipe, not over it");
  EXPECT_TRUE(fs::is_fifo(folder / "pipe"));
  EXPECT_EQ(folder.file_count(), 2u);
  expect_clear(error_of([&] { write_file("/dev/full", std::string_view("x")); }), "/dev/full: expected space to write");
  EXPECT_TRUE(fs::is_character_file("/dev/full"));
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
