// PyTorch's results for the losses (tests/oracle/make_loss_fixtures.py), and helpers to compare with them.
#pragma once

#include <cstdlib>
#include <string>
#include <vector>

#include "engine/io/safetensors.h"
#include "tests/ops/op_test.h"

namespace depthstill::test {

inline const SafetensorsFile& loss_oracle() {
  const char* const elsewhere =
      std::getenv("DEPTHSTILL_TREE");  // tree of a test program that was carried to another machine
  static const SafetensorsFile file(std::string(elsewhere != nullptr ? elsewhere : DEPTHSTILL_SOURCE_DIR) +
                                    "/tests/oracle/losses.safetensors");
  return file;
}

inline std::vector<float> oracle_values(const std::string& name) { return loss_oracle().read_floats(name); }

inline Tensor oracle_tensor(const std::string& name) {
  Shape shape;
  for (const int64_t size : loss_oracle().at(name).shape) shape.push_back(size);
  return tensor<float>(shape, oracle_values(name));
}

}  // namespace depthstill::test
