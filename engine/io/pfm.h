// PFM, one channel ("Pf"): rows stored from the bottom up, byte order given by the sign of the scale. The magnitude
// of the scale is not applied, as is usual.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace depthstill {

struct FloatMap {
  int width = 0, height = 0;
  std::vector<float> values;  // (height, width), top row first
};

// A PfmLayout says where the rows of a file are: float32, the last row first.
struct PfmLayout {
  int width = 0, height = 0;
  bool swapped = false;  // bytes of other order than this machine's
  uint64_t data_offset = 0;
};
// `head`: the file's first bytes, at least its header. file_bytes: the size of the whole file, which must end where its
// data end.
PfmLayout parse_pfm(std::span<const uint8_t> head, uint64_t file_bytes, const std::string& name);
// Turns the bytes of rows as they are stored into floats of this machine, in place.
void swap_pfm(const PfmLayout& layout, std::span<float> values);

FloatMap read_pfm(const std::string& path);
FloatMap decode_pfm(std::span<const uint8_t> file, const std::string& name);

// Little-endian rows with scale -1. Throws Error that begins with `name` if sides and values do not agree.
std::vector<uint8_t> encode_pfm(const FloatMap& map, const std::string& name);
// Writes it atomically. values: (height, width), top row first.
void write_pfm(const std::string& path, int width, int height, std::span<const float> values);

}  // namespace depthstill
