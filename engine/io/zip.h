// The stored (uncompressed) entries of a zip archive in memory, as torch.save writes them: where each one's bytes are.
// libzip copies what it reads and does not tell where an entry lies; these files are mapped and read in place.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

namespace depthstill {

using ZipEntries = std::map<std::string, std::span<const std::byte>>;

bool is_zip(std::span<const std::byte> file);

// Zip64 is read too. Throws Error, beginning with `where`, for a damaged archive and for compressed or encrypted
// entries.
ZipEntries read_zip(std::span<const std::byte> file, const std::string& where);

}  // namespace depthstill
