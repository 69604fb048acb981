// NumPy's .npy, format versions 1 to 3: numbers of either byte order, in C or Fortran order. Values come back as float.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace depthstill {

struct FloatArray {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

// An NpyLayout says where the numbers of a file are, and how they become floats.
struct NpyLayout {
  std::vector<int64_t> shape;
  bool fortran_order = false;  // the first index runs fastest
  bool integers = false;       // integers or truth values, not floats
  bool swapped = false;        // bytes of other order than this machine's
  size_t element_bytes = 0;
  uint64_t data_offset = 0;
  void (*convert)(const uint8_t* from, std::span<float> to) = nullptr;
  std::string comment;  // text behind '#' at the end of the header

  // Turns stored numbers, in the order of the file, into floats. `stored` is left in this machine's byte order.
  void to_floats(std::span<uint8_t> stored, std::span<float> to) const;
};
// `head`: the file's first bytes, at least its header. file_bytes: the size of the whole file, which must end where its
// data end.
NpyLayout parse_npy(std::span<const uint8_t> head, uint64_t file_bytes, const std::string& name);

// dtypes f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 and b1. The file must end where its data end. The values are in C order.
FloatArray read_npy(const std::string& path);
FloatArray decode_npy(std::span<const uint8_t> file, const std::string& name);

enum class NpyType : uint8_t { kFloat, kHalf };  // '<f4', '<f2' (rounded to nearest even)
// Format version 1, written atomically. The comment, of printable ASCII, goes to the end of the header, which numpy
// reads as Python and so passes over.
void write_npy(const std::string& path, std::span<const int64_t> shape, std::span<const float> values,
               NpyType type = NpyType::kFloat, const std::string& comment = "");

}  // namespace depthstill
