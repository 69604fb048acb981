// .npy arrays, and depth maps in them.
#include "engine/io/npy.h"

#include <algorithm>

#include "engine/io/map_file.h"
#include "tests/fuzz/maps.h"
#include "tests/fuzz/target.h"

namespace depthstill::fuzz {
namespace {

void read(Input input) {
  const FloatArray array = decode_npy(input, "array");
  size_t count = 1;
  for (const int64_t size : array.shape) count *= static_cast<size_t>(size);
  expect(array.values.size() == count, "expected ", count, " values, found ", array.values.size());
  static const InputFile file("map.npy");
  file.write(input);
  const DepthMap map = read_in_parts(file.path());
  expect(map.values.size() == count, "expected a map of ", count, " values, found ", map.values.size());
}

// Makes the header as long as it is: to the last line break before the data, which hold none in the corpus.
void repair(Bytes& input) {
  if (input.size() < 12) return;
  const auto end = std::find(input.rbegin(), input.rend(), uint8_t{'\n'}).base();
  const size_t prefix = input[6] == 1 ? 10 : 12, header = static_cast<size_t>(end - input.begin());
  if (header < prefix) return;
  if (input[6] == 1) {
    set_number(std::span<uint8_t>(input), 8, static_cast<uint16_t>(header - prefix));
  } else {
    set_number(std::span<uint8_t>(input), 8, static_cast<uint32_t>(header - prefix));
  }
}

}  // namespace

Target npy_target() {
  return {"npy",
          read,
          {"'descr': ",
           "'<f4'",
           "'>f8'",
           "'|b1'",
           "'<f2'",
           "'>u2'",
           "'|i1'",
           "'<u8'",
           "'<c8'",
           "'|O'",
           "'fortran_order': ",
           "True",
           "False",
           "'shape': ",
           "(1, ",
           "(0,)",
           "()",
           "2L",
           ", }",
           "# depthstill: ",
           "depth in metres, unit ",
           "inverse depth up to scale and shift, unit 1",
           "\x93NUMPY",
           "\"",
           "(1, 1, 1, 1, 1, 1, 1, 1, 1)"},
          repair};
}

}  // namespace depthstill::fuzz
