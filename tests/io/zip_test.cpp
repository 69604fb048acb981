#include "engine/io/zip.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <cstring>
#include <vector>

#include "engine/io/torch_file.h"
#include "tests/io/test_files.h"

namespace depthstill {
namespace {

using testing_files::error_of;
using testing_files::TemporaryFolder;

// An archive of stored entries, and where its records are.
struct Archive {
  std::string bytes;
  std::vector<size_t> local, data, central;
  size_t end = 0;

  void put(size_t at, uint64_t value, size_t width) { std::memcpy(&bytes[at], &value, width); }
  std::string error() const {
    return error_of([&] { read_zip(std::as_bytes(std::span(bytes)), "z"); });
  }
};

void append(std::string& to, uint64_t value, size_t width) {
  for (size_t i = 0; i < width; ++i) to += static_cast<char>(value >> (8 * i));
}

// Fields that the local header and the directory have in common, from the version on.
std::string common_fields(const std::string& name, const std::string& data) {
  std::string fields;
  append(fields, 20, 2);  // version
  append(fields, 0, 2 + 2 + 4);
  append(fields, crc32_z(0, reinterpret_cast<const Bytef*>(data.data()), data.size()), 4);
  for (int i = 0; i < 2; ++i) append(fields, data.size(), 4);
  append(fields, name.size(), 2);
  append(fields, 0, 2);
  return fields;
}

Archive make_archive(const std::vector<std::pair<std::string, std::string>>& entries) {
  Archive archive;
  std::string directory;
  for (const auto& [name, data] : entries) {
    archive.local.push_back(archive.bytes.size());
    archive.bytes += "PK\x03\x04" + common_fields(name, data) + name;
    archive.data.push_back(archive.bytes.size());
    archive.bytes += data;
    archive.central.push_back(directory.size());
    directory += "PK\x01\x02";
    append(directory, 20, 2);
    directory += common_fields(name, data);
    append(directory, 0, 2 + 2 + 2);  // comment, disk, attributes
    append(directory, 0, 4);
    append(directory, archive.local.back(), 4);
    directory += name;
  }
  const size_t begin = archive.bytes.size();
  for (size_t& at : archive.central) at += begin;
  archive.bytes += directory;
  archive.end = archive.bytes.size();
  archive.bytes += "PK\x05\x06";
  append(archive.bytes, 0, 4);
  for (int i = 0; i < 2; ++i) append(archive.bytes, entries.size(), 2);
  append(archive.bytes, directory.size(), 4);
  append(archive.bytes, begin, 4);
  append(archive.bytes, 0, 2);
  return archive;
}

Archive two() { return make_archive({{"n/a", "some bytes"}, {"n/b", "other bytes"}}); }

TEST(zip, reads_what_is_stored) {
  const Archive archive = two();
  const ZipEntries entries = read_zip(std::as_bytes(std::span(archive.bytes)), "z");
  ASSERT_EQ(entries.size(), 2u);
  const auto& bytes = entries.at("n/b").bytes;
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), "other bytes");
  EXPECT_FALSE(entries.at("n/b").compressed);
}

TEST(zip, changed_bytes_are_refused) {
  Archive archive = two();
  archive.bytes[archive.data[1] + 3] ^= 1;
  EXPECT_EQ(archive.error(), "z: zip archive: expected the bytes whose CRC-32 is stated, found others in n/b");
}

TEST(zip, contradictions_are_refused) {
  struct Case {
    const char* what;
    void (*edit)(Archive&);
    const char* message;
  };
  const char* const differs = "expected a header that says what the directory says, found another for n/a";
  const Case cases[] = {
      {"name", [](Archive& a) { a.bytes[a.local[0] + 30] = 'm'; }, differs},
      {"method", [](Archive& a) { a.put(a.local[0] + 8, 8, 2); }, differs},
      {"encryption", [](Archive& a) { a.put(a.local[0] + 6, 1, 2); }, differs},
      {"CRC-32", [](Archive& a) { a.put(a.local[0] + 14, 7, 4); }, differs},
      {"CRC-32 left out", [](Archive& a) { a.put(a.local[0] + 14, 0, 4); }, differs},
      {"stored size", [](Archive& a) { a.put(a.local[0] + 18, 9, 4); }, differs},
      {"size", [](Archive& a) { a.put(a.local[0] + 22, 11, 4); }, differs},
      {"sizes", [](Archive& a) { a.put(a.central[0] + 24, 11, 4); }, "expected a stored entry of one size, found 10"},
      {"overlap",
       [](Archive& a) {
         const std::string inner = make_archive({{"n/c", "in"}}).bytes.substr(0, 35);
         Archive outer = make_archive({{"n/a", inner}, {"n/c", "in"}});
         outer.put(outer.central[1] + 42, outer.data[0], 4);
         a = outer;
       },
       "expected entries that do not overlap"},
      {"into the directory", [](Archive& a) { a.put(a.end + 16, a.central[0] - 4, 4); }, "expected"},
      {"size of the directory", [](Archive& a) { a.put(a.end + 12, 60, 4); }, "expected a directory of the size"},
      {"fewer entries", [](Archive& a) { a.put(a.end + 8, 0x00010001, 4); }, "expected a directory of the size"},
  };
  for (const Case& c : cases) {
    Archive archive = two();
    ASSERT_EQ(archive.error(), "");
    c.edit(archive);
    EXPECT_NE(archive.error().find(c.message), std::string::npos) << c.what << ": " << archive.error();
  }
}

// As streams are written: sizes and checksum stand behind the data, and in the directory.
TEST(zip, a_header_may_leave_out_what_follows) {
  Archive archive = two();
  for (const size_t at : archive.local) {
    archive.put(at + 6, 8, 2);
    for (const size_t field : {14, 18, 22}) archive.put(at + field, 0, 4);
  }
  EXPECT_EQ(archive.error(), "");
  archive.put(archive.local[0] + 22, 9, 4);
  EXPECT_NE(archive.error(), "");
}

TEST(zip, an_archive_that_is_no_checkpoint_is_named) {
  const TemporaryFolder folder;
  const auto error = [&](const Archive& archive) {
    write_file(folder / "z.pth", archive.bytes);
    return error_of([&] { TorchFile opened(folder / "z.pth"); });
  };
  EXPECT_EQ(error(make_archive({{"photos/1.jpg", "a"}, {"photos/2.jpg", "b"}})),
            folder / "z.pth" +
                ": expected a PyTorch checkpoint (NAME/data.pkl), found a zip archive of 2 files, such as " +
                "'photos/1.jpg'");
  Archive compressed = make_archive({{"photos/1.jpg", "a"}});
  compressed.put(compressed.local[0] + 8, 8, 2);
  compressed.put(compressed.central[0] + 10, 8, 2);
  EXPECT_TRUE(error(compressed).ends_with("found a zip archive of 1 files, such as 'photos/1.jpg'"))
      << error(compressed);
  const std::string none("\x80\x02N.", 4);
  EXPECT_TRUE(error(make_archive({{"a/data.pkl", none}, {"b/data.pkl", none}}))
                  .ends_with("expected one NAME/data.pkl, found 'a/data.pkl' and another"));
}

}  // namespace
}  // namespace depthstill
