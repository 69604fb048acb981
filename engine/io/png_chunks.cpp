#include "engine/io/png_chunks.h"

#include <zlib.h>

namespace depthstill {

void append_big_endian32(std::vector<uint8_t>& out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<uint8_t>(value >> shift));
}

void append_png_chunk(std::vector<uint8_t>& out, std::string_view type, std::span<const uint8_t> data) {
  append_big_endian32(out, static_cast<uint32_t>(data.size()));
  const size_t begin = out.size();
  out.insert(out.end(), type.begin(), type.end());
  out.insert(out.end(), data.begin(), data.end());
  append_big_endian32(out, static_cast<uint32_t>(crc32_z(crc32_z(0, nullptr, 0), &out[begin], out.size() - begin)));
}

}  // namespace depthstill
