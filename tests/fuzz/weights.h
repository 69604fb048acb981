// All that a file of weights says, read.
#pragma once

#include "engine/io/weights_file.h"
#include "tests/fuzz/target.h"

namespace depthstill::fuzz {

// Tensors of integers, or of values that are not finite, are refused by a message when they are read as floats.
inline void read_all(const WeightsFile& file) {
  for (const StoredTensor& tensor : file.tensors()) {
    uint64_t bytes = size_of(tensor.type);
    for (const int64_t size : tensor.shape) {
      expect(size >= 0, "a size of ", size);
      bytes *= static_cast<uint64_t>(size);
    }
    expect(bytes == tensor.bytes, "expected ", bytes, " bytes of '", tensor.name, "', found ", tensor.bytes);
    expect(file.find(tensor.name) == &tensor, "expected to find '", tensor.name, "' by its name");
    std::vector<std::byte> stored(tensor.bytes);
    file.read_bytes(tensor, stored);
    std::vector<float> floats(static_cast<size_t>(tensor.numel()));
    message_of([&] { file.read_floats(tensor, floats); });
  }
}

}  // namespace depthstill::fuzz
