#include "tests/fuzz/archive.h"

#include <zlib.h>

#include <algorithm>

namespace depthstill::fuzz {
namespace {

// Sizes and signatures of zip's headers.
constexpr size_t kLocalBytes = 30, kCentralBytes = 46;
constexpr uint8_t kLocal[] = {'P', 'K', 3, 4}, kCentral[] = {'P', 'K', 1, 2}, kAny[] = {'P', 'K'};

template <size_t N>
size_t find(const Bytes& bytes, const uint8_t (&signature)[N], size_t from) {
  const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(std::min(from, bytes.size()));
  return static_cast<size_t>(std::search(begin, bytes.end(), std::begin(signature), std::end(signature)) -
                             bytes.begin());
}

uint32_t checksum(const Bytes& bytes, size_t begin, size_t size) {
  return static_cast<uint32_t>(crc32_z(0, bytes.data() + begin, size));
}

void append(Bytes& bytes, Input more) { bytes.insert(bytes.end(), more.begin(), more.end()); }

}  // namespace

void repair_checksums(Bytes& archive) {
  for (size_t at = find(archive, kCentral, 0); at + kCentralBytes <= archive.size();
       at = find(archive, kCentral, at + 4)) {
    const size_t size = number_at<uint32_t>(archive, at + 20), local = number_at<uint32_t>(archive, at + 42);
    if (local > archive.size() || archive.size() - local < kLocalBytes) continue;
    const size_t begin =
        local + kLocalBytes + number_at<uint16_t>(archive, local + 26) + number_at<uint16_t>(archive, local + 28);
    if (begin > archive.size() || size > archive.size() - begin) continue;
    const uint32_t sum = checksum(archive, begin, size);
    set_number(std::span<uint8_t>(archive), at + 16, sum);
    set_number(std::span<uint8_t>(archive), local + 14, sum);
  }
}

void repair_directory(Bytes& archive) {
  Bytes whole, directory;
  uint16_t count = 0;
  for (size_t at = find(archive, kLocal, 0); at + kLocalBytes <= archive.size(); ++count) {
    const size_t name_bytes = number_at<uint16_t>(archive, at + 26);
    const size_t begin = at + kLocalBytes + name_bytes + number_at<uint16_t>(archive, at + 28);
    if (begin > archive.size()) break;
    size_t end = find(archive, kAny, begin);
    while (end < archive.size() && find(archive, kLocal, end) != end && find(archive, kCentral, end) != end) {
      end = find(archive, kAny, end + 2);
    }
    const auto local_at = static_cast<uint32_t>(whole.size()), size = static_cast<uint32_t>(end - begin);
    append(whole, Input(archive).subspan(at, kLocalBytes + name_bytes));
    const std::span<uint8_t> local = std::span(whole).subspan(local_at);
    set_number(local, 14, checksum(archive, begin, size));
    set_number(local, 18, size);
    set_number(local, 22, size);
    set_number(local, 28, uint16_t{0});
    Bytes central(kCentralBytes, 0);
    std::copy(std::begin(kCentral), std::end(kCentral), central.begin());
    std::copy(local.begin() + 4, local.begin() + kLocalBytes, central.begin() + 6);
    set_number(std::span<uint8_t>(central), 42, local_at);
    append(directory, central);
    append(directory, Input(local).subspan(kLocalBytes));
    append(whole, Input(archive).subspan(begin, size));
    at = find(archive, kLocal, end) == end ? end : archive.size();
  }
  Bytes end = {'P', 'K', 5, 6};
  end.resize(22);
  set_number(std::span<uint8_t>(end), 8, count);
  set_number(std::span<uint8_t>(end), 10, count);
  set_number(std::span<uint8_t>(end), 12, static_cast<uint32_t>(directory.size()));
  set_number(std::span<uint8_t>(end), 16, static_cast<uint32_t>(whole.size()));
  append(whole, directory);
  append(whole, end);
  if (count > 0) archive = std::move(whole);
}

}  // namespace depthstill::fuzz
