#include "engine/io/zip.h"

#include <zlib.h>

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

// Sizes and signatures of APPNOTE.TXT 6.3, section 4.3.
constexpr uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50,
                   kLocator64 = 0x07064b50;
constexpr size_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56, kLocator64Bytes = 20;
constexpr size_t kMaxCommentBytes = 0xffff;
constexpr uint16_t kExtra64 = 1, kEncrypted = 1, kSizesFollow = 8;
constexpr size_t kMaxNameBytes = 1024;
constexpr uint64_t kElsewhere = 0xffffffff;  // the number is in a zip64 record

class Archive {
 public:
  Archive(std::span<const std::byte> file, const std::string& where) : file_(file), where_(where) {}

  ZipEntries read() {
    find_directory();
    uint64_t at = directory_;
    for (uint64_t i = 0; i < count_; ++i) at = read_entry(at);
    expect(at == directory_end_, "a directory of the size that its end states", at - directory_);
    check_disjoint();  // before the checksums: overlapping entries could ask for more than the file's bytes
    check_contents();
    return std::move(entries_);
  }

 private:
  struct Entry {
    uint64_t stored, size, header;
    uint64_t method, crc;
  };
  struct Range {
    uint64_t begin, end;
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
    uint64_t limit = end, bytes = number(end + 12, 4);
    count_ = number(end + 10, 2);
    directory_ = number(end + 16, 4);
    expect(number(end + 8, 2) == count_, "an archive in one piece", "a part of several");
    if (end >= kLocator64Bytes && number(end - kLocator64Bytes, 4) == kLocator64) {
      const uint64_t end64 = number(end - kLocator64Bytes + 8, 8);
      range(end64, kEnd64Bytes);
      expect(number(end64, 4) == kEnd64, "a zip64 record", "another");
      const auto replace = [&](uint64_t& field, uint64_t elsewhere, uint64_t at) {
        const uint64_t wide = number(at, 8);
        expect(field == wide || field == elsewhere, "one directory", "two that differ");
        field = wide;
      };
      replace(count_, 0xffff, end64 + 32);
      replace(bytes, kElsewhere, end64 + 40);
      replace(directory_, kElsewhere, end64 + 48);
      limit = end64;
    }
    expect(directory_ <= limit && bytes <= limit - directory_, "a directory before its end", directory_);
    directory_end_ = directory_ + bytes;
    expect(count_ <= file_.size() / kCentralBytes, "no more entries than fit", count_);
  }

  // The fields that hold all ones are in the zip64 block of the extra data, in this order.
  void widen(Entry& entry, uint64_t extra, uint64_t extra_bytes) const {
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
    const uint64_t flags = number(at + 8, 2);
    const uint64_t name_bytes = number(at + 28, 2), extra_bytes = number(at + 30, 2),
                   comment_bytes = number(at + 32, 2);
    Entry entry{number(at + 20, 4), number(at + 24, 4), number(at + 42, 4), number(at + 10, 2), number(at + 16, 4)};
    const auto raw_name = range(at + kCentralBytes, name_bytes);
    expect(name_bytes <= kMaxNameBytes, "a name of at most 1024 bytes", name_bytes);
    const std::string name(reinterpret_cast<const char*>(raw_name.data()), raw_name.size());
    const uint64_t extra = at + kCentralBytes + name_bytes;
    range(extra, extra_bytes);
    widen(entry, extra, extra_bytes);
    expect(!(flags & kEncrypted), "no encryption", printable(name));
    const bool compressed = entry.method != 0;
    expect(compressed || entry.stored == entry.size, "a stored entry of one size", entry.stored);
    const ZipEntry found{data_of(entry, name), compressed, static_cast<uint32_t>(entry.crc)};
    expect(entries_.emplace(name, found).second, "each name once", concat_text(printable(name), " twice"));
    return extra + extra_bytes + comment_bytes;
  }

  // The entry's own header says the same as the directory. What was written as a stream may leave out sizes and CRC-32.
  std::span<const std::byte> data_of(const Entry& entry, const std::string& name) {
    const uint64_t at = entry.header;
    range(at, kLocalBytes);
    expect(number(at, 4) == kLocal, "an entry's header", concat_text("none for ", printable(name)));
    const uint64_t flags = number(at + 6, 2), name_bytes = number(at + 26, 2), extra_bytes = number(at + 28, 2);
    const auto raw_name = range(at + kLocalBytes, name_bytes);
    range(at + kLocalBytes + name_bytes, extra_bytes);
    Entry local{number(at + 18, 4), number(at + 22, 4), at, number(at + 8, 2), number(at + 14, 4)};
    widen(local, at + kLocalBytes + name_bytes, extra_bytes);
    const auto same = [&](uint64_t here, uint64_t there) {
      return here == there || ((flags & kSizesFollow) && here == 0);
    };
    const bool agrees = std::string_view(reinterpret_cast<const char*>(raw_name.data()), raw_name.size()) == name &&
                        !(flags & kEncrypted) && local.method == entry.method && same(local.crc, entry.crc) &&
                        same(local.stored, entry.stored) && same(local.size, entry.size);
    expect(agrees, "a header that says what the directory says", concat_text("another for ", printable(name)));
    const uint64_t begin = at + kLocalBytes + name_bytes + extra_bytes;
    const std::span<const std::byte> data = range(begin, entry.stored);
    ranges_.push_back({at, begin + entry.stored});
    return data;
  }

  void check_disjoint() {
    std::sort(ranges_.begin(), ranges_.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
    ranges_.push_back({directory_, directory_end_});
    for (size_t i = 1; i < ranges_.size(); ++i)
      expect(ranges_[i - 1].end <= ranges_[i].begin, "entries that do not overlap",
             concat_text("two at ", ranges_[i].begin));
  }

  void check_contents() const {
    for (const auto& [name, entry] : entries_) {
      if (entry.compressed) continue;
      const auto crc = crc32_z(0, reinterpret_cast<const Bytef*>(entry.bytes.data()), entry.bytes.size());
      expect(crc == entry.crc, "the bytes whose CRC-32 is stated", concat_text("others in ", printable(name)));
    }
  }

  const std::span<const std::byte> file_;
  const std::string& where_;
  uint64_t count_ = 0, directory_ = 0, directory_end_ = 0;
  std::vector<Range> ranges_;
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
