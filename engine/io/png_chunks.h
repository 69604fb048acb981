// The chunks that a PNG file is made of: length, type, data, and the CRC-32 of type and data.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace depthstill {

inline constexpr std::array<uint8_t, 8> kPngSignature = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

inline uint32_t big_endian32(const uint8_t* p) {
  return uint32_t{p[0]} << 24 | uint32_t{p[1]} << 16 | uint32_t{p[2]} << 8 | uint32_t{p[3]};
}
void append_big_endian32(std::vector<uint8_t>& out, uint32_t value);

// `type`: four letters; data under 2 GiB.
void append_png_chunk(std::vector<uint8_t>& out, std::string_view type, std::span<const uint8_t> data);

}  // namespace depthstill
