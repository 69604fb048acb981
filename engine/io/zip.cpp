#include "engine/io/zip.h"

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

// Sizes and signatures of APPNOTE.TXT 6.3, section 4.3.
constexpr uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50,
                   kLocator64 = 0x07064b50;
constexpr size_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56, kLocator64Bytes = 20;
constexpr size_t kMaxCommentBytes = 0xffff;
constexpr uint16_t kExtra64 = 1, kEncrypted = 1;
constexpr size_t kMaxNameBytes = 1024;

class Archive {
 public:
  Archive(std::span<const std::byte> file, const std::string& where) : file_(file), where_(where) {}

  ZipEntries read() {
    find_directory();
    uint64_t at = directory_;
    for (uint64_t i = 0; i < count_; ++i) at = read_entry(at);
    return std::move(entries_);
  }

 private:
  struct Entry {
    uint64_t stored, size, header;
  };

  template <class Found>
  void expect(bool ok, const char* expected, const Found& found) const {
    if (!ok) fail(where_, ": zip archive: expected ", expected, ", found ", found);
  }

  uint64_t number(uint64_t at, size_t width) const {
    expect(width <= file_.size() && at <= file_.size() - width, "a record within the file", at);
    uint64_t value = 0;
    for (size_t i = 0; i < width; ++i) value |= static_cast<uint64_t>(file_[static_cast<size_t>(at) + i]) << (8 * i);
    return value;
  }

  std::span<const std::byte> range(uint64_t at, uint64_t bytes) const {
    expect(at <= file_.size() && bytes <= file_.size() - at, "an entry within the file's bytes", at + bytes);
    return file_.subspan(static_cast<size_t>(at), static_cast<size_t>(bytes));
  }

  // Searches from the end of the file for the last record that reaches exactly to it.
  uint64_t find_end() const {
    expect(file_.size() >= kEndBytes, "a directory at the end", "none");
    const size_t last = file_.size() - kEndBytes;
    for (size_t back = 0; back <= std::min(last, kMaxCommentBytes); ++back) {
      if (number(last - back, 4) == kEnd && number(last - back + 20, 2) == back) return last - back;
    }
    fail(where_, ": zip archive: expected a directory at the end, found none: the file is cut short or not whole");
  }

  void find_directory() {
    const uint64_t end = find_end();
    count_ = number(end + 10, 2);
    directory_ = number(end + 16, 4);
    if (end >= kLocator64Bytes && number(end - kLocator64Bytes, 4) == kLocator64) {
      const uint64_t end64 = number(end - kLocator64Bytes + 8, 8);
      range(end64, kEnd64Bytes);
      expect(number(end64, 4) == kEnd64, "a zip64 record", "another");
      count_ = number(end64 + 32, 8);
      directory_ = number(end64 + 48, 8);
    }
    expect(count_ <= file_.size() / kCentralBytes, "no more entries than fit", count_);
  }

  // The fields that hold all ones are in the zip64 block of the extra data, in this order.
  void widen(Entry& entry, uint64_t extra, uint64_t extra_bytes) const {
    constexpr uint64_t kElsewhere = 0xffffffff;
    uint64_t* const fields[] = {&entry.size, &entry.stored, &entry.header};
    for (uint64_t at = extra; at + 4 <= extra + extra_bytes;) {
      const uint64_t id = number(at, 2), bytes = number(at + 2, 2);
      at += 4;
      if (id == kExtra64) {
        const uint64_t end = std::min(at + bytes, extra + extra_bytes);
        for (uint64_t* field : fields) {
          if (*field != kElsewhere) continue;
          expect(at + 8 <= end, "a zip64 size", "none");
          *field = number(at, 8);
          at += 8;
        }
        return;
      }
      at += bytes;
    }
  }

  // Returns where the next one begins.
  uint64_t read_entry(uint64_t at) {
    range(at, kCentralBytes);
    expect(number(at, 4) == kCentral, "an entry of the directory", "another record");
    const uint64_t flags = number(at + 8, 2), method = number(at + 10, 2);
    const uint64_t name_bytes = number(at + 28, 2), extra_bytes = number(at + 30, 2),
                   comment_bytes = number(at + 32, 2);
    Entry entry{number(at + 20, 4), number(at + 24, 4), number(at + 42, 4)};
    const auto raw_name = range(at + kCentralBytes, name_bytes);
    expect(name_bytes <= kMaxNameBytes, "a name of at most 1024 bytes", name_bytes);
    const std::string name(reinterpret_cast<const char*>(raw_name.data()), raw_name.size());
    const uint64_t extra = at + kCentralBytes + name_bytes;
    range(extra, extra_bytes);
    widen(entry, extra, extra_bytes);
    expect(!(flags & kEncrypted), "no encryption", printable(name));
    expect(method != 0 || entry.stored == entry.size, "a stored entry of one size", entry.stored);

    range(entry.header, kLocalBytes);
    expect(number(entry.header, 4) == kLocal, "an entry's header", concat_text("none for ", printable(name)));
    const uint64_t skip = kLocalBytes + number(entry.header + 26, 2) + number(entry.header + 28, 2);
    const ZipEntry found{range(entry.header + skip, entry.stored), method != 0};
    expect(entries_.emplace(name, found).second, "each name once", concat_text(printable(name), " twice"));
    return extra + extra_bytes + comment_bytes;
  }

  const std::span<const std::byte> file_;
  const std::string& where_;
  uint64_t count_ = 0, directory_ = 0;
  ZipEntries entries_;
};

}  // namespace

bool is_zip(std::span<const std::byte> file) {
  constexpr std::string_view kMagic("PK\x03\x04", 4);
  return file.size() >= kMagic.size() &&
         std::string_view(reinterpret_cast<const char*>(file.data()), kMagic.size()) == kMagic;
}

ZipEntries read_zip(std::span<const std::byte> file, const std::string& where) { return Archive(file, where).read(); }

}  // namespace depthstill
