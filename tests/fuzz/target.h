// A fuzz target reads one input with one of the project's readers. driver.cpp runs targets without any fuzzing library,
// libfuzzer.cpp lets clang's drive them.
//
// There are two right ends of an input: it is read to a valid result, or the reader refuses it with an Error whose
// message is one line. All else is a finding: another exception, a crash, a sanitizer's report, a result that
// contradicts itself, more memory than most_bytes(), more time than the driver allows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/error.h"

namespace depthstill::fuzz {

using Bytes = std::vector<uint8_t>;
using Input = std::span<const uint8_t>;

struct Target {
  std::string_view name;  // of its folder in corpus/, too
  void (*read)(Input input);
  std::vector<std::string_view> words;     // what the format's files are made of, put into inputs as a whole
  void (*repair)(Bytes& input) = nullptr;  // makes lengths and checksums right, so that damage gets past their checks
};

Target image_target();
Target npy_target();
Target pfm_target();
Target safetensors_target();
Target torch_target();
Target zip_target();
Target list_target();
Target toml_target();
Target packed_target();
Target regions_target();
Target planted_target();  // fails in every way that the driver has to notice

// Thrown by a target whose reader gave a result that contradicts itself.
struct Contradiction {
  std::string what;
};
template <class... Parts>
void expect(bool ok, const Parts&... parts) {
  if (!ok) throw Contradiction{concat_text(parts...)};
}

// Calls f(), and lets an Error pass if its message is one line; gives the message, "" if there was none.
template <class F>
std::string message_of(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    expect(std::string_view(error.what()).find('\n') == std::string_view::npos,
           "a message of several lines: ", error.what());
    return error.what();
  }
  return "";
}

// Bound on the memory of a reader: what the pickle reader states (Pickle::kBytesPerByte), the greatest of all readers'
// bounds, beside a start of 1 MiB for tables and buffers.
constexpr size_t most_bytes(size_t input_bytes) { return (size_t{1} << 20) + 256 * input_bytes; }

struct Outcome {
  std::string finding;  // "" for a right end
  std::string refusal;  // the Error's message; "" if the input was read
};
Outcome run(const Target& target, Input input);

// A file in a memory file system that every input of a process is written to: readers take paths. `name` decides
// what readers tell by an extension.
class InputFile {
 public:
  explicit InputFile(const std::string& name);
  const std::string& path() const { return path_; }
  void write(Input bytes) const;

 private:
  std::string path_;
  int descriptor_ = -1;
};

// The folder of input files, removed when the process that first asked for it ends.
const std::string& work_folder();

// Little-endian numbers in an input.
template <class T>
T number_at(Input input, size_t at) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value = static_cast<T>(value | static_cast<T>(T{input[at + i]} << (8 * i)));
  return value;
}
template <class T>
void set_number(std::span<uint8_t> bytes, size_t at, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) bytes[at + i] = static_cast<uint8_t>(value >> (8 * i));
}

}  // namespace depthstill::fuzz
