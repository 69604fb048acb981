// Zip archives.
#include "engine/io/zip.h"

#include "tests/fuzz/archive.h"
#include "tests/fuzz/target.h"

namespace depthstill::fuzz {
namespace {

void read(Input input) {
  const std::span<const std::byte> file = std::as_bytes(input);
  for (const auto& [name, entry] : read_zip(file, "archive")) {
    const bool inside = entry.bytes.empty() || (entry.bytes.data() >= file.data() &&
                                                entry.bytes.data() + entry.bytes.size() <= file.data() + file.size());
    expect(inside, "expected '", name, "' inside the archive");
  }
}

}  // namespace

Target zip_target() {
  using namespace std::string_view_literals;
  return {"zip",
          read,
          {"PK\3\4"sv, "PK\1\2"sv, "PK\5\6"sv, "PK\6\6"sv, "PK\6\7"sv, "PK\7\x08"sv, "\1\0\x10\0"sv, "\1\0\x18\0"sv,
           "\xff\xff\xff\xff"sv, "\xff\xff"sv, "\x2d\0"sv, "\x08\0"sv, "a/data.pkl"sv, "../"sv},
          repair_checksums};
}

}  // namespace depthstill::fuzz
