// What PyTorch computed for the losses (tests/oracle/make_loss_fixtures.py), and helpers to compare with it.
#pragma once

#include <string>
#include <vector>

#include "engine/io/safetensors.h"
#include "tests/ops/op_test.h"

namespace depthstill::test {

inline const SafetensorsFile& loss_oracle() {
  static const SafetensorsFile file(DEPTHSTILL_SOURCE_DIR "/tests/oracle/losses.safetensors");
  return file;
}

inline std::vector<float> oracle_values(const std::string& name) { return loss_oracle().read_floats(name); }

inline Tensor oracle_tensor(const std::string& name) {
  Shape shape;
  for (const int64_t size : loss_oracle().at(name).shape) shape.push_back(size);
  return tensor<float>(shape, oracle_values(name));
}

}  // namespace depthstill::test
