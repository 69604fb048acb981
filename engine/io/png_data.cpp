#include "engine/io/png_data.h"

#include <zlib.h>

#include <cstring>
#include <vector>

#include "engine/io/png_chunks.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

class Inflater {
 public:
  Inflater() : buffer_(size_t{1} << 16) { check(inflateInit(&stream_) == Z_OK, "zlib: out of memory"); }
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // Takes the next bytes; false if they are damaged.
  bool take(std::span<const uint8_t> bytes) {
    stream_.next_in = const_cast<uint8_t*>(bytes.data());  // zlib does not write to it
    stream_.avail_in = static_cast<uInt>(bytes.size());
    while (!ended_ && (stream_.avail_in > 0 || stream_.avail_out == 0)) {
      stream_.next_out = buffer_.data();
      stream_.avail_out = static_cast<uInt>(buffer_.size());
      const int status = inflate(&stream_, Z_NO_FLUSH);
      total_ += static_cast<int64_t>(buffer_.size() - stream_.avail_out);
      ended_ = status == Z_STREAM_END;
      if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR) return false;
      if (status == Z_BUF_ERROR) break;
    }
    return true;
  }
  int64_t total() const { return total_; }
  bool ended() const { return ended_; }

 private:
  z_stream stream_{};
  std::vector<uint8_t> buffer_;
  int64_t total_ = 0;
  bool ended_ = false;
};

}  // namespace

void check_png_data(std::span<const uint8_t> file, const ImageHeader& header, const std::string& name) {
  Inflater inflater;
  bool whole = true;
  for (size_t at = kPngSignature.size(); at + 12 <= file.size() && whole;) {
    const size_t length = big_endian32(&file[at]);
    if (std::memcmp(&file[at + 4], "IDAT", 4) == 0) whole = inflater.take(file.subspan(at + 8, length));
    at += 12 + length;
  }
  check(whole && inflater.ended(), name, ": expected a ", header.kind, ", found damaged pixel data");
  check(inflater.total() >= header.raw_bytes, name, ": expected ", header.raw_bytes, " bytes of PNG rows for ",
        header.stored, " pixels, found ", inflater.total());
}

}  // namespace depthstill
