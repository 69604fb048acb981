// Training runs that are interrupted, and what they leave.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <string>

#include "engine/io/safetensors.h"
#include "tools/interrupt.h"
#include "tools/train_run.h"

namespace depthstill::testing_runs {

inline TrainOptions into(const std::string& out) {
  TrainOptions options;
  options.out = out;
  return options;
}

// Trains up to this step, after which SIGTERM arrives.
inline void train_until(int64_t step, const Recipe& recipe, TrainOptions options) {
  install_interrupt_handlers();
  options.on_step = [step](int64_t updates) {
    if (updates == step) std::raise(SIGTERM);
  };
  EXPECT_THROW(train(recipe, options), Interrupted);
  clear_interrupt();
}

// Tensors of a checkpoint, byte for byte.
inline void expect_same_files(const std::string& a, const std::string& b) {
  const SafetensorsFile first(a), second(b);
  ASSERT_EQ(first.tensors().size(), second.tensors().size());
  for (const StoredTensor& tensor : first.tensors()) {
    const auto x = first.bytes(tensor), y = second.bytes(second.at(tensor.name));
    ASSERT_EQ(x.size(), y.size()) << tensor.name;
    EXPECT_TRUE(std::equal(x.begin(), x.end(), y.begin())) << tensor.name;
  }
}

}  // namespace depthstill::testing_runs
