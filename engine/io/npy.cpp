#include "engine/io/npy.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <string_view>

#include "engine/io/atomic_file.h"
#include "engine/io/file_kind.h"
#include "engine/io/half.h"
#include "engine/io/text_file.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

constexpr std::string_view kMagic("\x93NUMPY", 6);
constexpr size_t kMaxRank = 8;
constexpr int64_t kMaxElements = int64_t{1} << 32;

// The header is a Python dictionary with exactly three keys; this reads that form and nothing more.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& name) : text_(text), name_(name) {}

  void parse() {
    expect('{');
    while (!take('}')) {
      const std::string_view key = quoted();
      expect(':');
      if (key == "descr") {
        once(has_descr_, key);
        descr = quoted();
      } else if (key == "fortran_order") {
        once(has_order_, key);
        fortran_order = boolean();
      } else if (key == "shape") {
        once(has_shape_, key);
        parse_shape();
      } else {
        refuse(concat_text("a known key, found '", printable(key), "'"));
      }
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (at_ < text_.size() && text_[at_] == '#') comment = rest_of_line();
    skip_space();
    if (at_ != text_.size()) refuse(concat_text("nothing after the dictionary, found ", text_.size() - at_, " bytes"));
    if (!has_descr_ || !has_order_ || !has_shape_) refuse("the keys descr, fortran_order and shape, found fewer");
  }

  std::string_view descr;
  bool fortran_order = false;
  std::vector<int64_t> shape;
  std::string_view comment;  // without '#' and the blanks around it

 private:
  [[noreturn]] void refuse(const std::string& what) const { fail(name_, ": npy header: expected ", what); }
  void once(bool& seen, std::string_view key) const {
    if (seen) refuse(concat_text("each key once, found '", key, "' twice"));
    seen = true;
  }
  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  std::string_view rest_of_line() {
    const size_t end = std::min(text_.find('\n', at_), text_.size());
    std::string_view text = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end;
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    return text.substr(0, text.find_last_not_of(' ') + 1);
  }
  bool take(char c) {
    skip_space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!take(c)) refuse(concat_text("'", c, "' at byte ", at_, ", found something else"));
  }
  std::string_view quoted() {
    const char quote = take('"') ? '"' : '\'';
    if (quote == '\'') expect('\'');
    const size_t end = text_.find(quote, at_);
    if (end == std::string_view::npos) refuse("a closing quote, found none");
    const std::string_view word = text_.substr(at_, end - at_);
    at_ = end + 1;
    return word;
  }
  bool boolean() {
    skip_space();
    for (const std::string_view word : {"True", "False"}) {
      if (text_.substr(at_).starts_with(word)) {
        at_ += word.size();
        return word == "True";
      }
    }
    refuse("True or False, found neither");
  }
  void parse_shape() {
    expect('(');
    while (!take(')')) {
      if (shape.size() == kMaxRank) refuse(concat_text("at most ", kMaxRank, " dimensions, found more"));
      skip_space();
      int64_t size = 0;
      const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), size);
      if (error != std::errc() || size < 0) refuse("a size in shape, found something else");
      at_ = static_cast<size_t>(end - text_.data());
      if (at_ < text_.size() && text_[at_] == 'L') ++at_;  // Python 2 wrote long integers so
      shape.push_back(size);
      if (!take(',')) {
        expect(')');
        break;
      }
    }
  }

  std::string_view text_;
  const std::string& name_;
  size_t at_ = 0;
  bool has_descr_ = false, has_order_ = false, has_shape_ = false;
};

template <class T>
void convert(const uint8_t* from, std::span<float> to) {
  for (size_t i = 0; i < to.size(); ++i) {
    T value;
    std::memcpy(&value, from + i * sizeof(T), sizeof(T));
    to[i] = static_cast<float>(value);
  }
}

void convert_half(const uint8_t* from, std::span<float> to) {
  for (size_t i = 0; i < to.size(); ++i) {
    to[i] = half_to_float(static_cast<uint16_t>(from[2 * i] | from[2 * i + 1] << 8));
  }
}

struct ElementType {
  std::string_view code;  // without the byte-order mark
  size_t bytes;
  void (*convert)(const uint8_t*, std::span<float>);
};

constexpr ElementType kTypes[] = {
    {"f2", 2, convert_half},      {"f4", 4, convert<float>},    {"f8", 8, convert<double>},
    {"i1", 1, convert<int8_t>},   {"i2", 2, convert<int16_t>},  {"i4", 4, convert<int32_t>},
    {"i8", 8, convert<int64_t>},  {"u1", 1, convert<uint8_t>},  {"u2", 2, convert<uint16_t>},
    {"u4", 4, convert<uint32_t>}, {"u8", 8, convert<uint64_t>}, {"b1", 1, convert<uint8_t>},
};

const ElementType& find_type(std::string_view descr, const std::string& name) {
  for (const ElementType& type : kTypes) {
    if (descr.size() == 3 && descr.substr(1) == type.code &&
        (descr[0] == '<' || descr[0] == '>' || (descr[0] == '|' && type.bytes == 1))) {
      return type;
    }
  }
  fail(name, ": expected a number type such as '<f4', found '", printable(descr), "'");
}

int64_t count_of(const std::vector<int64_t>& shape, const std::string& name) {
  int64_t count = 1;
  for (const int64_t size : shape) {
    check(size == 0 || count <= kMaxElements / size, name, ": expected at most ", kMaxElements,
          " elements, found more");
    count *= size;
  }
  return count;
}

// Values in Fortran order to C order: the last index of `shape` then runs fastest.
std::vector<float> to_c_order(const std::vector<int64_t>& shape, const std::vector<float>& values) {
  std::vector<size_t> index(shape.size()), stride(shape.size(), 1);
  for (size_t d = 1; d < shape.size(); ++d) stride[d] = stride[d - 1] * static_cast<size_t>(shape[d - 1]);
  std::vector<float> ordered(values.size());
  size_t from = 0;
  for (float& value : ordered) {
    value = values[from];
    for (size_t d = shape.size(); d-- > 0;) {
      from += stride[d];
      if (++index[d] < static_cast<size_t>(shape[d])) break;
      from -= stride[d] * index[d];
      index[d] = 0;
    }
  }
  return ordered;
}

}  // namespace

void NpyLayout::to_floats(std::span<uint8_t> stored, std::span<float> to) const {
  for (size_t at = 0; swapped && at < stored.size(); at += element_bytes) {
    std::reverse(&stored[at], &stored[at] + element_bytes);
  }
  convert(stored.data(), to);
}

NpyLayout parse_npy(std::span<const uint8_t> head, uint64_t file_bytes, const std::string& name) {
  const auto bytes_at = [&](size_t at) { return static_cast<size_t>(head[at]); };
  if (head.size() < 10 || std::memcmp(head.data(), kMagic.data(), kMagic.size()) != 0) {
    const std::string kind = file_kind(std::as_bytes(head));
    fail(name, ": expected a .npy file, found ", kind.empty() ? "another signature" : kind);
  }
  const int version = head[6];
  check(version >= 1 && version <= 3 && head[7] == 0, name, ": expected .npy version 1.0, 2.0 or 3.0, found ", version,
        ".", int{head[7]});
  const size_t prefix = version == 1 ? 10 : 12;
  check(head.size() >= prefix, name, ": expected a .npy header, found the file's end");
  size_t length = bytes_at(8) | bytes_at(9) << 8;
  if (version > 1) length |= bytes_at(10) << 16 | bytes_at(11) << 24;
  check(length <= head.size() - prefix, name, ": expected a .npy header of ", length, " bytes, found ",
        head.size() - prefix);

  HeaderParser header(std::string_view(reinterpret_cast<const char*>(head.data()) + prefix, length), name);
  header.parse();
  const ElementType& type = find_type(header.descr, name);
  const bool swapped = header.descr[0] == (std::endian::native == std::endian::little ? '>' : '<');
  const bool integers = type.code[0] != 'f';
  NpyLayout layout{header.shape, header.fortran_order, integers,     swapped,
                   type.bytes,   prefix + length,      type.convert, std::string(header.comment)};
  const uint64_t found = file_bytes - layout.data_offset;
  const uint64_t expected = static_cast<uint64_t>(count_of(layout.shape, name)) * type.bytes;
  check(found == expected, name, ": expected ", expected, " bytes of data, found ", found);
  return layout;
}

FloatArray decode_npy(std::span<const uint8_t> file, const std::string& name) {
  const NpyLayout layout = parse_npy(file, file.size(), name);
  FloatArray array{layout.shape, std::vector<float>(static_cast<size_t>(count_of(layout.shape, name)))};
  std::vector<uint8_t> stored(file.begin() + static_cast<std::ptrdiff_t>(layout.data_offset), file.end());
  layout.to_floats(stored, array.values);
  if (layout.fortran_order) array.values = to_c_order(layout.shape, array.values);
  return array;
}

FloatArray read_npy(const std::string& path) { return decode_npy(read_bytes(path), path); }

void write_npy(const std::string& path, std::span<const int64_t> shape, std::span<const float> values, NpyType type,
               const std::string& comment) {
  const bool half = type == NpyType::kHalf;
  std::string header = half ? "{'descr': '<f2'" : "{'descr': '<f4'";
  header += ", 'fortran_order': False, 'shape': (";
  int64_t count = 1;
  for (const int64_t size : shape) {
    header += std::to_string(size) + ",";
    count *= size;
  }
  check(count == static_cast<int64_t>(values.size()), path, ": expected ", count, " values, got ", values.size());
  header += "), }";
  if (!comment.empty()) header += "  # " + comment;
  constexpr size_t kPrefix = 10, kAlignment = 64;
  header.append(kAlignment - 1 - (kPrefix + header.size()) % kAlignment, ' ');
  header += '\n';
  AtomicFile file(path);
  const char prefix[4] = {1, 0, static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
  file.write(kMagic.data(), kMagic.size());
  file.write(prefix, sizeof(prefix));
  file.write(header.data(), header.size());
  if (half) {
    std::vector<uint16_t> halves(values.size());
    std::transform(values.begin(), values.end(), halves.begin(), float_to_half);
    file.write(halves.data(), halves.size() * sizeof(uint16_t));
  } else {
    file.write(values.data(), values.size() * sizeof(float));
  }
  file.commit();
}

}  // namespace depthstill
