// The entries of a zip archive in memory: where each one's bytes are. torch.save stores them uncompressed.
// libzip copies what it reads and does not tell where an entry lies; these files are mapped and read in place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>

namespace depthstill {

struct ZipEntry {
  std::span<const std::byte> bytes;  // bytes in the archive
  bool compressed = false;
  uint32_t crc = 0;  // CRC-32 of the contents, as stated
};
using ZipEntries = std::map<std::string, ZipEntry>;

bool is_zip(std::span<const std::byte> file);

// Zip64 is read too. Throws Error, beginning with `where`, for encrypted entries, for an archive that contradicts
// itself (an entry's header and the directory, overlapping entries) and for stored bytes that do not have their CRC-32.
ZipEntries read_zip(std::span<const std::byte> file, const std::string& where);

}  // namespace depthstill
