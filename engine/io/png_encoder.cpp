// PNG written without libpng: filters here, deflate by zlib (stb_image_write has no 16-bit form, and its deflate is
// weak).
#include <zlib.h>

#include <algorithm>
#include <cstdlib>

#include "engine/io/image_decoders.h"
#include "engine/io/png_chunks.h"
#include "kernels/core/error.h"

namespace depthstill::stb {
namespace {

uint8_t paeth(int left, int up, int corner) {
  const int estimate = left + up - corner;
  const int dl = std::abs(estimate - left), du = std::abs(estimate - up), dc = std::abs(estimate - corner);
  return static_cast<uint8_t>(dl <= du && dl <= dc ? left : du <= dc ? up : corner);
}

// out = row - guess(left, up, upper left), the neighbours outside the image being 0.
template <class Guess>
void subtract_guess(const uint8_t* row, const uint8_t* up, size_t bytes, size_t pixel_bytes, uint8_t* out,
                    Guess guess) {
  for (size_t i = 0; i < pixel_bytes; ++i) out[i] = static_cast<uint8_t>(row[i] - guess(0, up[i], 0));
  for (size_t i = pixel_bytes; i < bytes; ++i) {
    out[i] = static_cast<uint8_t>(row[i] - guess(row[i - pixel_bytes], up[i], up[i - pixel_bytes]));
  }
}

// PNG filter `type` of one row; `up` is zeros for the first row.
void filter_row(int type, const uint8_t* row, const uint8_t* up, size_t bytes, size_t pixel_bytes, uint8_t* out) {
  const auto apply = [&](auto guess) { subtract_guess(row, up, bytes, pixel_bytes, out, guess); };
  switch (type) {
    case 1:
      return apply([](int left, int, int) { return left; });
    case 2:
      return apply([](int, int above, int) { return above; });
    case 3:
      return apply([](int left, int above, int) { return (left + above) / 2; });
    default:
      return apply([](int left, int above, int corner) { return int{paeth(left, above, corner)}; });
  }
}

// The usual heuristic: per row, the filter whose output, read as signed bytes, has the smallest sum of magnitudes.
std::vector<uint8_t> filter_rows(std::span<const uint8_t> raw, size_t rows, size_t row_bytes, size_t pixel_bytes) {
  std::vector<uint8_t> filtered(rows * (row_bytes + 1));
  std::vector<uint8_t> zeros(row_bytes), trial(row_bytes);
  for (size_t r = 0; r < rows; ++r) {
    const uint8_t* row = &raw[r * row_bytes];
    const uint8_t* up = r > 0 ? row - row_bytes : zeros.data();
    uint8_t* out = &filtered[r * (row_bytes + 1)];
    int64_t best = -1;
    for (const int type : {1, 2, 3, 4}) {
      filter_row(type, row, up, row_bytes, pixel_bytes, trial.data());
      int64_t cost = 0;
      for (const uint8_t byte : trial) cost += std::abs(static_cast<int>(static_cast<int8_t>(byte)));
      if (best >= 0 && cost >= best) continue;
      best = cost;
      out[0] = static_cast<uint8_t>(type);
      std::copy(trial.begin(), trial.end(), out + 1);
    }
  }
  return filtered;
}

}  // namespace

std::vector<uint8_t> encode(std::span<const uint8_t> raw, ImageSize size, int bits, bool grey, int level) {
  const auto rows = static_cast<size_t>(size.height);
  const size_t row_bytes = raw.size() / rows, pixel_bytes = static_cast<size_t>((grey ? 1 : 3) * bits / 8);
  const std::vector<uint8_t> filtered = filter_rows(raw, rows, row_bytes, pixel_bytes);
  uLongf packed_bytes = compressBound(static_cast<uLong>(filtered.size()));
  std::vector<uint8_t> packed(packed_bytes);
  const int status =
      compress2(packed.data(), &packed_bytes, filtered.data(), static_cast<uLong>(filtered.size()), level);
  check(status == Z_OK, "encode_png: zlib returned ", status);
  packed.resize(packed_bytes);

  std::vector<uint8_t> header;
  append_big_endian32(header, static_cast<uint32_t>(size.width));
  append_big_endian32(header, static_cast<uint32_t>(size.height));
  const uint8_t colour = grey ? 0 : 2;
  header.insert(header.end(), {static_cast<uint8_t>(bits), colour, 0, 0, 0});
  std::vector<uint8_t> file(kPngSignature.begin(), kPngSignature.end());
  file.reserve(packed.size() + 64);
  append_png_chunk(file, "IHDR", header);
  append_png_chunk(file, "IDAT", packed);
  append_png_chunk(file, "IEND", {});
  return file;
}

}  // namespace depthstill::stb
