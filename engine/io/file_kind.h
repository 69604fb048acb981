// Names what a file is, for messages about files that are not what was asked for.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace depthstill {

// The kind with its article, told by the first bytes: "a PNG picture", "a Git LFS pointer ...", "an empty file". Text
// of no known kind is named with its beginning. "" if nothing is known of such bytes. At most 512 bytes are looked at.
std::string file_kind(std::span<const std::byte> file);

// The same for a file that ought to be text, such as a list: "" for all text but that which stands for something else
// (a Git LFS pointer, a web page). read_text() refuses what this names.
std::string kind_unless_text(std::span<const std::byte> file);

}  // namespace depthstill
