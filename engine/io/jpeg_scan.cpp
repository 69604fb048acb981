#include "engine/io/jpeg_scan.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <vector>

#include "engine/io/jpeg_header.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

// Reads bits up to the next marker.
class BitReader {
 public:
  explicit BitReader(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  int available() {
    if (count_ < 16) refill();
    return count_;
  }
  uint32_t peek16() {  // zeros stand for what is missing
    if (count_ < 16) refill();
    return static_cast<uint32_t>(buffer_ >> 48);
  }
  void skip(int count) {
    buffer_ <<= count;
    count_ -= count;
  }
  // Goes on behind the next marker, whose second byte it returns; 0 if there is none.
  uint8_t next_marker() {
    buffer_ = 0;
    count_ = 0;
    while (at_ + 1 < bytes_.size()) {
      const uint8_t next = bytes_[at_ + 1];
      if (bytes_[at_] == 0xff && next != 0 && next != 0xff) {
        at_ += 2;
        return next;
      }
      ++at_;
    }
    return 0;
  }

 private:
  void refill() {
    while (count_ <= 48 && at_ < bytes_.size()) {
      const uint8_t byte = bytes_[at_];
      if (byte == 0xff) {
        if (at_ + 1 >= bytes_.size() || bytes_[at_ + 1] != 0) return;
        ++at_;
      }
      ++at_;
      buffer_ |= uint64_t{byte} << (56 - count_);
      count_ += 8;
    }
  }

  std::span<const uint8_t> bytes_;
  size_t at_ = 0;
  uint64_t buffer_ = 0;  // the next bit is the highest one
  int count_ = 0;
};

// Codes of a table, shifted to 16 bits: one of `length` bits is below `ends[length]`, and the shorter ones are not.
struct Decoder {
  std::array<uint32_t, 17> ends{};
  std::array<int, 17> offsets{};  // symbol of a code = symbols[code + offset], the code in its own length
  std::array<uint8_t, 256> symbols{};

  explicit Decoder(const HuffmanTable& table) : symbols(table.symbols) {
    int code = 0, index = 0;
    for (size_t length = 1; length <= 16; ++length) {
      offsets[length] = index - code;
      index += table.counts[length - 1];
      code += table.counts[length - 1];
      ends[length] = static_cast<uint32_t>(code) << (16 - length);
      code *= 2;
    }
  }
};

class ScanWalk {
 public:
  // `filled`: of each component, which coefficients of its blocks scans before this one made other than 0.
  ScanWalk(const std::string& name, const JpegFrame& frame, const JpegTables& tables, const JpegScan& scan,
           std::vector<std::vector<uint64_t>>& filled)
      : name_(name), frame_(frame), tables_(tables), scan_(scan), filled_(filled), reader_(scan.bytes) {
    for (const JpegScan::Part& part : scan.parts) {
      dc_.emplace_back(tables.dc[static_cast<size_t>(part.dc_table & 3)]);
      ac_.emplace_back(tables.ac[static_cast<size_t>(part.ac_table & 3)]);
    }
  }

  void run() {
    const JpegComponent& first = component(0);
    const bool alone = scan_.parts.size() == 1;
    const ImageSize own = frame_.blocks(first), padded = frame_.padded_blocks(first);
    const ImageSize units = alone ? own : ImageSize{padded.width / first.h, padded.height / first.v};
    for (int y = 0; y < units.height; ++y) {
      row_ = std::min(frame_.size.height - 1, frame_.size.height * y / units.height);
      for (int x = 0; x < units.width; ++x) {
        restart(int64_t{y} * units.width + x);
        if (alone) {
          block(0, static_cast<size_t>(y) * static_cast<size_t>(padded.width) + static_cast<size_t>(x));
        } else {
          for (size_t part = 0; part < scan_.parts.size(); ++part) {
            for (int k = 0; k < component(part).h * component(part).v; ++k) block(part, 0);
          }
        }
      }
    }
  }

 private:
  const JpegComponent& component(size_t part) const {
    return frame_.components[static_cast<size_t>(scan_.parts[part].component)];
  }
  void ended() const {
    fail(name_, ": expected all pixels of a JPEG scan, found its end at row ", row_, " of ", frame_.size.height);
  }
  void damaged() const {
    fail(name_, ": expected codes of a JPEG scan, found damage at row ", row_, " of ", frame_.size.height);
  }

  int bits(int count) {
    if (count == 0) return 0;
    if (reader_.available() < count) ended();
    const uint32_t value = reader_.peek16() >> (16 - count);
    reader_.skip(count);
    return static_cast<int>(value);
  }
  int symbol(const Decoder& decoder) {
    const uint32_t next = reader_.peek16();
    size_t length = 1;
    while (length <= 16 && next >= decoder.ends[length]) ++length;
    const int available = reader_.available();
    if (length > 16) available < 16 ? ended() : damaged();
    if (available < static_cast<int>(length)) ended();
    reader_.skip(static_cast<int>(length));
    return decoder.symbols[static_cast<size_t>(static_cast<int>(next >> (16 - length)) + decoder.offsets[length])];
  }

  void restart(int64_t unit) {
    const int interval = tables_.restart_interval;
    if (interval == 0 || unit == 0 || unit % interval != 0) return;
    const uint8_t marker = reader_.next_marker();
    if (marker == 0) ended();
    if (marker != 0xd0 + (unit / interval - 1) % 8) damaged();
    end_run_ = 0;
    means_.fill(0);
  }

  void block(size_t part, size_t index) {
    if (!frame_.progressive) {
      mean(part);
      baseline_details(ac_[part]);
    } else if (scan_.first == 0) {
      scan_.high == 0 ? mean(part) : static_cast<void>(bits(1));
    } else {
      uint64_t& filled = filled_[static_cast<size_t>(scan_.parts[part].component)][index];
      scan_.high == 0 ? first_details(filled) : refined_details(filled);
    }
  }

  // A sum of differences past 16 bits would overflow in a decoder.
  void mean(size_t part) {
    const int size = symbol(dc_[part]), value = bits(size);
    if (size > 0) means_[part] += value >> (size - 1) == 0 ? value - (1 << size) + 1 : value;
    if (std::abs(means_[part]) > 0x7fff) damaged();
  }

  void baseline_details(const Decoder& decoder) {
    for (int k = 1; k < 64; ++k) {
      const int code = symbol(decoder), size = code & 15, zeros = code >> 4;
      if (size == 0 && zeros != 15) return;
      k += zeros;
      bits(size);
    }
  }

  void start_end_run(int zeros) { end_run_ = (1 << zeros) + bits(zeros) - 1; }

  void first_details(uint64_t& filled) {
    if (end_run_ > 0) {
      --end_run_;
      return;
    }
    for (int k = scan_.first; k <= scan_.last; ++k) {
      const int code = symbol(ac_[0]), size = code & 15, zeros = code >> 4;
      if (size == 0 && zeros != 15) return start_end_run(zeros);
      k += zeros;
      if (size > 0 && k < 64) filled |= uint64_t{1} << k;
      bits(size);
    }
  }

  // Coefficients that are not 0 get a further bit; a code says how many zeros stand before the next one that is new.
  void refined_details(uint64_t& filled) {
    int k = scan_.first;
    while (k <= scan_.last && end_run_ == 0) {
      const int code = symbol(ac_[0]), size = code & 15;
      int zeros = code >> 4;
      if (size > 1) damaged();
      if (size == 0 && zeros != 15) {
        start_end_run(zeros);
        ++end_run_;  // this block counts, too
        break;
      }
      bits(size);
      for (; k <= scan_.last; ++k) {
        if ((filled >> k & 1) != 0) {
          bits(1);
        } else if (zeros-- == 0) {
          if (size > 0) filled |= uint64_t{1} << k;
          ++k;
          break;
        }
      }
    }
    if (end_run_ == 0) return;
    --end_run_;
    for (; k <= scan_.last; ++k) bits(static_cast<int>(filled >> k & 1));
  }

  const std::string& name_;
  const JpegFrame& frame_;
  const JpegTables& tables_;
  const JpegScan& scan_;
  std::vector<std::vector<uint64_t>>& filled_;
  BitReader reader_;
  std::vector<Decoder> dc_, ac_;  // per part of the scan
  std::array<int, 4> means_{};
  int end_run_ = 0;  // blocks to come without new coefficients
  int row_ = 0;      // of pixels
};

}  // namespace

ImageHeader check_jpeg_scans(std::span<const uint8_t> file, const std::string& name) {
  std::vector<std::vector<uint64_t>> filled;
  return walk_jpeg(file, name, [&](const JpegFrame& frame, const JpegTables& tables, const JpegScan& scan) {
    check(frame.components.size() != 4 || frame.adobe, name,
          ": expected a JPEG of 4 components with Adobe's marker, without which stb_image cannot read it, found none");
    filled.resize(frame.components.size());
    if (scan.first > 0) {
      const auto index = static_cast<size_t>(scan.parts[0].component);
      const ImageSize blocks = frame.padded_blocks(frame.components[index]);
      filled[index].resize(static_cast<size_t>(blocks.width) * static_cast<size_t>(blocks.height));
    }
    ScanWalk(name, frame, tables, scan, filled).run();
  });
}

}  // namespace depthstill
