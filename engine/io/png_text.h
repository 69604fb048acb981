// Text in PNG files: tEXt chunks, which programs that do not know the keyword pass over.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace depthstill {

// Puts the text behind the header of `png`, a whole file. keyword: 1 to 79 characters; both ASCII.
void add_png_text(std::vector<uint8_t>& png, std::string_view keyword, std::string_view text);

// The first text of that keyword, of at most 1024 bytes; nullopt if there is none before the pixels. Nothing is checked
// that decoding checks.
std::optional<std::string> find_png_text(std::span<const uint8_t> png, std::string_view keyword);

}  // namespace depthstill
