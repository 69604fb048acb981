#include "engine/io/jpeg_header.h"

#include <algorithm>
#include <cstring>

#include "engine/io/orientation.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

// A scan costs a pass over all blocks, however few bytes it has; pictures have about ten.
constexpr int kMaxScans = 500;

int ceil_div(int a, int b) { return (a + b - 1) / b; }

class JpegWalk {
 public:
  JpegWalk(std::span<const uint8_t> file, const std::string& name, const OnJpegScan& on_scan)
      : file_(file), name_(name), on_scan_(on_scan) {}
  ImageHeader run();

 private:
  using Segment = std::span<const uint8_t>;  // contents, without marker and length

  template <class... Parts>
  void expect(bool ok, const Parts&... parts) const {
    check(ok, name_, ": expected ", parts...);
  }
  void need(size_t at, size_t bytes) const {
    expect(at <= file_.size() && file_.size() - at >= bytes, "a whole JPEG, found its end at byte ", file_.size(),
           " before the end marker");
  }
  int number16(size_t at) const { return file_[at] << 8 | file_[at + 1]; }
  void read_segment(uint8_t marker, Segment segment);
  void read_exif(Segment segment);
  void read_huffman(Segment segment);
  void read_quantisation(Segment segment);
  void read_frame(uint8_t marker, Segment segment);
  JpegScan read_scan(Segment segment) const;
  void read_progression(JpegScan& scan, Segment segment) const;
  void check_tables(const JpegScan& scan) const;
  void check_length(const JpegScan& scan) const;
  size_t end_of_scan(size_t at) const;

  Segment file_;
  const std::string& name_;
  const OnJpegScan& on_scan_;
  ImageHeader header_;
  JpegFrame frame_;
  JpegTables tables_;
  std::vector<bool> seen_;  // components that a scan gave their mean values
  bool has_exif_ = false;
};

void JpegWalk::read_exif(Segment segment) {
  if (has_exif_ || segment.size() < 6 || std::memcmp(segment.data(), "Exif", 5) != 0) return;
  header_.orientation = exif_orientation(segment.subspan(6));
  has_exif_ = true;
}

// A code is a number of its length that no other code begins with, and not all ones.
void JpegWalk::read_huffman(Segment segment) {
  while (!segment.empty()) {
    expect(segment.size() >= 17, "a whole JPEG Huffman table, found ", segment.size(), " bytes");
    const int kind = segment[0] >> 4, number = segment[0] & 15;
    expect(kind <= 1 && number <= 3, "a JPEG Huffman table 0 to 3 of class 0 or 1, found table ", number, " of class ",
           kind);
    HuffmanTable table;
    size_t codes = 0;
    int code = 0;
    for (size_t length = 1; length <= 16; ++length) {
      table.counts[length - 1] = segment[length];
      codes += segment[length];
      code = 2 * code + segment[length];
      expect(code < 1 << length, "a JPEG Huffman table with codes that differ, found too many of ", length, " bits");
    }
    expect(codes <= 256 && segment.size() >= 17 + codes, "a JPEG Huffman table of at most 256 codes, found ", codes);
    std::copy_n(segment.begin() + 17, codes, table.symbols.begin());
    const auto greatest = *std::max_element(table.symbols.begin(), table.symbols.end());
    expect(kind == 1 || greatest <= 15, "JPEG differences of at most 15 bits, found a Huffman table with ",
           int{greatest});
    table.defined = codes > 0;
    (kind == 0 ? tables_.dc : tables_.ac)[static_cast<size_t>(number)] = table;
    segment = segment.subspan(17 + codes);
  }
}

void JpegWalk::read_quantisation(Segment segment) {
  while (!segment.empty()) {
    const int bytes = 1 + (segment[0] >> 4), number = segment[0] & 15;
    expect(bytes <= 2 && number <= 3, "a JPEG quantisation table 0 to 3 of 8 or 16 bits, found table ", number, " of ",
           8 * bytes);
    const auto size = static_cast<size_t>(64 * bytes);
    expect(segment.size() > size, "a whole JPEG quantisation table, found ", segment.size(), " bytes");
    for (size_t i = 1; i <= size; i += static_cast<size_t>(bytes)) {
      expect(segment[i] != 0 || (bytes == 2 && segment[i + 1] != 0), "JPEG quantisation steps of at least 1, found 0");
    }
    tables_.quantisation[static_cast<size_t>(number)] = true;
    segment = segment.subspan(1 + size);
  }
}

void JpegWalk::read_frame(uint8_t marker, Segment segment) {
  expect(frame_.components.empty(), "one JPEG frame header, found a second one");
  expect(marker <= 0xc2, "a baseline or progressive JPEG, found coding SOF", marker - 0xc0);
  expect(segment.size() >= 6, "a JPEG frame header, found ", segment.size(), " bytes");
  expect(segment[0] == 8, "a JPEG of 8 bits, found ", int{segment[0]});
  const size_t components = segment[5];
  expect(components == 1 || components == 3 || components == 4, "a JPEG of 1, 3 or 4 components, found ", components);
  expect(segment.size() == 6 + 3 * components, "a JPEG frame header of ", components, " components, found ",
         segment.size(), " bytes");
  frame_.size = {segment[3] << 8 | segment[4], segment[1] << 8 | segment[2]};
  check_image_size(frame_.size.width, frame_.size.height, name_);
  frame_.progressive = marker == 0xc2;
  for (size_t i = 6; i < segment.size(); i += 3) {
    const JpegComponent component{segment[i], segment[i + 1] >> 4, segment[i + 1] & 15, segment[i + 2]};
    expect(component.h >= 1 && component.h <= 4 && component.v >= 1 && component.v <= 4,
           "JPEG sampling factors of 1 to 4, found ", component.h, "x", component.v);
    expect(component.quantisation <= 3, "a JPEG quantisation table 0 to 3, found ", component.quantisation);
    frame_.components.push_back(component);
    frame_.h_max = std::max(frame_.h_max, component.h);
    frame_.v_max = std::max(frame_.v_max, component.v);
  }
  for (const JpegComponent& component : frame_.components) {
    expect(frame_.h_max % component.h == 0 && frame_.v_max % component.v == 0,
           "JPEG sampling factors that divide the greatest, found ", component.h, "x", component.v, " below ",
           frame_.h_max, "x", frame_.v_max);
  }
  seen_.assign(components, false);
  header_.stored = frame_.size;
  header_.grey = components == 1;
}

JpegScan JpegWalk::read_scan(Segment segment) const {
  expect(!frame_.components.empty(), "a JPEG frame header before the pixels, found none");
  const size_t count = segment.empty() ? 0 : segment[0];
  expect(count >= 1 && count <= frame_.components.size() && segment.size() == 4 + 2 * count, "a JPEG scan of 1 to ",
         frame_.components.size(), " components, found ", count, " in ", segment.size(), " bytes");
  JpegScan scan;
  int blocks = 0;
  for (size_t i = 1; i < 1 + 2 * count; i += 2) {
    const auto same = [&](const JpegComponent& component) { return component.id == segment[i]; };
    const auto found = std::find_if(frame_.components.begin(), frame_.components.end(), same);
    expect(found != frame_.components.end(), "a JPEG scan of components of the frame, found component ",
           int{segment[i]});
    const auto index = static_cast<int>(found - frame_.components.begin());
    for (const JpegScan::Part& other : scan.parts) {
      expect(other.component != index, "a JPEG scan of different components, found ", int{segment[i]}, " twice");
    }
    scan.parts.push_back({index, segment[i + 1] >> 4, segment[i + 1] & 15});
    blocks += found->h * found->v;
  }
  expect(count == 1 || blocks <= 10, "at most 10 blocks in a unit of a JPEG scan, found ", blocks);
  read_progression(scan, segment.last(3));
  return scan;
}

// `segment`: the three bytes behind the components.
void JpegWalk::read_progression(JpegScan& scan, Segment segment) const {
  scan.high = segment[2] >> 4;
  scan.low = segment[2] & 15;
  if (!frame_.progressive) {
    expect(segment[0] == 0 && segment[2] == 0, "a whole scan of a baseline JPEG, found coefficients from ",
           int{segment[0]}, " on, bits ", scan.high, " to ", scan.low);
    return;
  }
  scan.first = segment[0];
  scan.last = segment[1];
  const bool mean = scan.first == 0 && scan.last == 0;
  const bool details = scan.first >= 1 && scan.first <= scan.last && scan.last <= 63 && scan.parts.size() == 1;
  const bool bits = scan.low <= 13 && (scan.high == 0 || scan.high == scan.low + 1);
  expect((mean || details) && bits, "a scan of a progressive JPEG, found coefficients ", scan.first, " to ", scan.last,
         " of ", scan.parts.size(), " components, bits ", scan.high, " to ", scan.low);
}

void JpegWalk::check_tables(const JpegScan& scan) const {
  const bool dc = scan.first == 0 && scan.high == 0, ac = !frame_.progressive || scan.first > 0;
  const auto known = [&](const std::array<HuffmanTable, 4>& tables, int number) {
    return number <= 3 && tables[static_cast<size_t>(number)].defined;
  };
  for (const JpegScan::Part& part : scan.parts) {
    const JpegComponent& component = frame_.components[static_cast<size_t>(part.component)];
    expect(tables_.quantisation[static_cast<size_t>(component.quantisation)],
           "a JPEG scan whose tables are defined before it, found none for quantisation table ",
           component.quantisation);
    expect(!dc || known(tables_.dc, part.dc_table),
           "a JPEG scan whose tables are defined before it, found none for DC Huffman table ", part.dc_table);
    expect(!ac || known(tables_.ac, part.ac_table),
           "a JPEG scan whose tables are defined before it, found none for AC Huffman table ", part.ac_table);
  }
}

// A block takes a bit for its mean value at the least, and in baseline coding another one for its end: this bounds the
// pixels, and with them time and memory, by the bytes that are there.
void JpegWalk::check_length(const JpegScan& scan) const {
  if (scan.first > 0) return;
  int64_t bits = 0;
  for (const JpegScan::Part& part : scan.parts) {
    const ImageSize blocks = frame_.blocks(frame_.components[static_cast<size_t>(part.component)]);
    bits += int64_t{blocks.width} * blocks.height * (frame_.progressive ? 1 : 2);
  }
  const int64_t bytes = (bits + 7) / 8;
  expect(static_cast<int64_t>(scan.bytes.size()) >= bytes, "a JPEG scan of ", bytes, " bytes or more for ", frame_.size,
         " pixels, found ", scan.bytes.size(), ": it ends before its pixels do");
}

// The next marker that is no restart marker.
size_t JpegWalk::end_of_scan(size_t at) const {
  while (at + 1 < file_.size()) {
    const void* found = std::memchr(&file_[at], 0xff, file_.size() - 1 - at);
    if (found == nullptr) break;
    at = static_cast<size_t>(static_cast<const uint8_t*>(found) - file_.data());
    const uint8_t next = file_[at + 1];
    if (next != 0x00 && next != 0xff && (next < 0xd0 || next > 0xd7)) return at;
    ++at;
  }
  return file_.size();
}

void JpegWalk::read_segment(uint8_t marker, Segment segment) {
  const bool frame = marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
  if (frame) read_frame(marker, segment);
  if (marker == 0xc4) read_huffman(segment);
  if (marker == 0xdb) read_quantisation(segment);
  if (marker == 0xe1) read_exif(segment);
  if (marker == 0xee && segment.size() >= 12 && std::memcmp(segment.data(), "Adobe", 5) == 0) frame_.adobe = true;
  if (marker == 0xdd) {
    expect(segment.size() == 2, "a JPEG restart interval of 2 bytes, found ", segment.size());
    tables_.restart_interval = segment[0] << 8 | segment[1];
  }
}

ImageHeader JpegWalk::run() {
  header_.format = ImageHeader::Format::kJpeg;
  header_.kind = "JPEG";
  int scans = 0;
  for (size_t at = 2;;) {
    need(at, 2);
    expect(file_[at] == 0xff, "a JPEG marker at byte ", at, ", found ", int{file_[at]});
    const uint8_t marker = file_[at + 1];
    if (marker == 0xff) {  // padding
      ++at;
      continue;
    }
    if (marker == 0xd9) break;
    need(at, 4);
    const auto length = static_cast<size_t>(number16(at + 2));
    expect(length >= 2, "a JPEG segment at byte ", at, ", found length ", length);
    need(at, 2 + length);
    const Segment segment = file_.subspan(at + 4, length - 2);
    read_segment(marker, segment);
    at += 2 + length;
    if (marker != 0xda) continue;
    expect(++scans <= kMaxScans, "at most ", kMaxScans, " JPEG scans, found more");
    JpegScan scan = read_scan(segment);
    check_tables(scan);
    const size_t end = end_of_scan(at);
    need(end, 2);
    scan.bytes = file_.subspan(at, end - at);
    check_length(scan);
    for (const JpegScan::Part& part : scan.parts) {
      const auto component = static_cast<size_t>(part.component);
      expect(seen_[component] || (scan.first == 0 && scan.high == 0), "a first JPEG scan of component ", component,
             " before others, found none");
      seen_[component] = true;
    }
    on_scan_(frame_, tables_, scan);
    at = end;
  }
  expect(scans > 0, "a JPEG with pixels, found none");
  const auto missing = std::find(seen_.begin(), seen_.end(), false);
  expect(missing == seen_.end(), "a JPEG scan of every component, found none of component ", missing - seen_.begin());
  header_.size = upright_size(header_.stored, header_.orientation);
  return header_;
}

}  // namespace

ImageSize JpegFrame::blocks(const JpegComponent& component) const {
  return {ceil_div(size.width * component.h, 8 * h_max), ceil_div(size.height * component.v, 8 * v_max)};
}

ImageSize JpegFrame::padded_blocks(const JpegComponent& component) const {
  return {ceil_div(size.width, 8 * h_max) * component.h, ceil_div(size.height, 8 * v_max) * component.v};
}

ImageHeader walk_jpeg(std::span<const uint8_t> file, const std::string& name, const OnJpegScan& on_scan) {
  return JpegWalk(file, name, on_scan).run();
}

}  // namespace depthstill
