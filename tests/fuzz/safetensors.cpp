// safetensors files.
#include "engine/io/safetensors.h"

#include <algorithm>

#include "tests/fuzz/target.h"
#include "tests/fuzz/weights.h"

namespace depthstill::fuzz {
namespace {

void read(Input input) {
  static const InputFile file("weights.safetensors");
  file.write(input);
  const SafetensorsFile weights(file.path());
  read_all(weights);
  size_t bytes = 0;
  for (const StoredTensor& tensor : weights.tensors()) bytes += tensor.bytes;
  expect(bytes < input.size(), "tensors of ", bytes, " bytes in a file of ", input.size());
}

// Makes the header as long as it is: to the last brace, since the data of the corpus hold none.
void repair(Bytes& input) {
  if (input.size() < 10) return;
  const auto end = std::find(input.rbegin(), input.rend(), uint8_t{'}'}).base();
  const auto header = static_cast<size_t>(end - input.begin());
  if (header > 8) set_number(std::span<uint8_t>(input), 0, static_cast<uint64_t>(header - 8));
}

}  // namespace

Target safetensors_target() {
  return {"safetensors",
          read,
          {"\"__metadata__\":{",
           "\"dtype\":",
           "\"F32\"",
           "\"BF16\"",
           "\"BOOL\"",
           "\"U8\"",
           "\"I64\"",
           "\"F8_E4M3\"",
           "\"shape\":",
           "\"data_offsets\":",
           "[0,0]",
           "[]",
           "[4294967296,4294967296]",
           "{}",
           "}",
           "{",
           "null",
           "true",
           "-1",
           "1.5",
           "1e400",
           "\\u0000",
           "\\n",
           "\\ud800",
           "\"\":",
           ",",
           "\xff",
           "\"format\":\"pt\""},
          repair};
}

}  // namespace depthstill::fuzz
