// Reads whole files into memory.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace depthstill {

inline constexpr uint64_t kMaxFileBytes = uint64_t{1} << 32;

// Throws Error "PATH: expected a readable file, found ..." for a missing file, a folder, a device, a file over the
// limit, and one that shrinks while it is read.
std::vector<uint8_t> read_bytes(const std::string& path, uint64_t max_bytes = kMaxFileBytes);
// Of UTF-8 or any other text made of bytes, a byte order mark of UTF-8 left out. Throws also for UTF-16 and UTF-32.
std::string read_text(const std::string& path, uint64_t max_bytes = kMaxFileBytes);

// The lines without their ends; "\n" and "\r\n" both end a line, and the last line needs no end.
std::vector<std::string> split_lines(const std::string& text);

// The length of the UTF-8 sequence at `at`, or 0 if it is malformed (overlong, surrogate, truncated, out of range).
size_t utf8_length(std::string_view text, size_t at);

// Text of unknown origin made fit for a one-line message: what does not print, or is not UTF-8, as \xNN for each byte.
std::string one_line(std::string_view text);
// The same, cut after 60 bytes.
std::string printable(std::string_view text);

}  // namespace depthstill
