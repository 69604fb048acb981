// The segments of a JPEG file: its frame, its tables, and which of them each scan uses. Nothing is decoded.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/io/image_header.h"

namespace depthstill {

// Codes of 1 to 16 bits in ascending order, as a DHT segment lists them.
struct HuffmanTable {
  std::array<uint8_t, 16> counts{};    // codes of each length
  std::array<uint8_t, 256> symbols{};  // what the codes stand for, in order
  bool defined = false;                // a table without any code is not
};

struct JpegTables {
  std::array<HuffmanTable, 4> dc, ac;
  std::array<bool, 4> quantisation{};  // whether it is defined
  int restart_interval = 0;            // units between restart markers; 0: none
};

struct JpegComponent {
  int id = 0, h = 1, v = 1;  // h, v: sampling factors
  int quantisation = 0;
};

struct JpegFrame {
  ImageSize size;
  bool progressive = false;
  bool adobe = false;  // a segment of Adobe's says how colours are coded
  std::vector<JpegComponent> components;
  int h_max = 1, v_max = 1;

  // Blocks of 8 x 8 that a component has by itself, and that it is padded to where scans interleave components.
  ImageSize blocks(const JpegComponent& component) const;
  ImageSize padded_blocks(const JpegComponent& component) const;
};

struct JpegScan {
  struct Part {
    int component = 0;  // index in the frame
    int dc_table = 0, ac_table = 0;
  };
  std::vector<Part> parts;
  int first = 0, last = 63, high = 0, low = 0;  // coefficients, and bits (progressive: the spec's Ss, Se, Ah, Al)
  std::span<const uint8_t> bytes;               // entropy-coded, with the restart markers between them
};

using OnJpegScan = std::function<void(const JpegFrame&, const JpegTables&, const JpegScan&)>;

// Throws Error if the file is cut short; if its coding is not baseline or progressive Huffman with 8 bits; if a table
// is wrong, or a scan uses one that no segment before it has defined; if a scan has fewer bytes than its pixels need at
// the least; or if a component has no scan. `on_scan` is called for each scan in turn.
ImageHeader walk_jpeg(std::span<const uint8_t> file, const std::string& name, const OnJpegScan& on_scan);

}  // namespace depthstill
