// List files of data sets, and where their paths lead.
#include <cmath>
#include <filesystem>

#include "engine/data/list_file.h"
#include "engine/data/list_folder.h"
#include "tests/fuzz/target.h"

namespace depthstill::fuzz {
namespace {

namespace fs = std::filesystem;

// A data set's root with two files in it, and one beside it that no list may reach.
class Root {
 public:
  Root() : path_(work_folder() + "/root"), folder_(path_, "raw", false) {
    for (const char* name : {"root/raw/a.png", "root/gt/a.png", "outside.png"}) InputFile(name).write({});
    std::error_code there;
    fs::create_symlink("../..", path_ + "/raw/up", there);
  }

  void place(const std::string& written) const {
    message_of([&] {
      const std::string path = folder_.path(folder_.place(written));
      const std::string real = fs::weakly_canonical(path).string();
      expect((real + '/').starts_with(path_ + '/'), "expected '", written, "' below the root, found ", real);
    });
  }

 private:
  std::string path_;
  ListFolder folder_;
};

void check_entry(const ListEntry& entry) {
  expect(!entry.image.empty() && entry.line >= 1, "an entry without image or line");
  for (const std::string& path : {entry.image, entry.depth}) {
    expect(plain_path(path) == path, "expected a plain path, found '", path, "'");
  }
  expect(std::isfinite(entry.focal) && entry.focal >= 0, "a focal length of ", entry.focal);
}

void read(Input input) {
  static const InputFile file("list.txt");
  static const Root root;
  file.write(input);
  BadLines bad;
  const std::vector<ListEntry> entries = read_list(file.path(), ListOrder::kAsWritten, &bad);
  for (size_t i = 0; i < entries.size(); ++i) {
    check_entry(entries[i]);
    expect(i == 0 || entries[i].line > entries[i - 1].line, "lines out of order");
    if (i < 2) root.place(entries[i].image);
  }
  expect(static_cast<size_t>(bad.count) >= bad.named.size() && bad.named.size() <= BadLines::kNamed,
         "bad lines: ", bad.count, ", named: ", bad.named.size());
  const std::vector<ListEntry> sorted = read_list(file.path(), ListOrder::kByImage);  // throws for bad lines
  expect(bad.count == 0 && sorted.size() == entries.size(), "other entries by another order");
}

}  // namespace

Target list_target() {
  using namespace std::string_view_literals;
  return {"list", read, {"None"sv,         "\""sv,       "\"\""sv,
                         "\t"sv,           " "sv,        "\n"sv,
                         "\r\n"sv,         "\r"sv,       "#"sv,
                         "\xef\xbb\xbf"sv, "\xff\xfe"sv, "\0"sv,
                         "./"sv,           "//"sv,       "../"sv,
                         "up/"sv,          "/"sv,        "\\"sv,
                         "a.png"sv,        "721.5"sv,    "1e999"sv,
                         "nan"sv,          "inf"sv,      "-1"sv,
                         "0x10"sv,         ","sv,        "\xe2\x80\xa8"sv,
                         "\x7f"sv,         "\x1b[2J"sv,  "gt/a.png"sv,
                         "/etc/passwd"sv,  "\xc3\xa9"sv, "\n#\n\n"sv}};
}

}  // namespace depthstill::fuzz
