// The other side of tests/oracle/make_student_fixture.py: weights, images and digests from an integer hash.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "engine/io/safetensors.h"
#include "engine/nn.h"
#include "models/prediction.h"

namespace depthstill::test {

inline uint64_t fnv1a64(std::string_view text) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3u;
  return hash;
}

inline uint64_t splitmix64(uint64_t x) {
  uint64_t z = x + 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// offset + scale * u, u in [-1, 1), in PyTorch's element order.
inline std::vector<float> hash_values(std::string_view key, int64_t count, double offset, double scale) {
  const uint64_t base = fnv1a64(key);
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    const double u = static_cast<double>(splitmix64(base + i) >> 40) * 0x1p-23 - 1.0;
    values[i] = static_cast<float>(offset + scale * u);
  }
  return values;
}

inline Tensor hash_tensor(std::string_view key, const Shape& shape, double offset, double scale) {
  const std::vector<float> values = hash_values(key, shape.numel(), offset, scale);
  return tensor<float>(shape, values);
}

// Sets parameters and buffers to what the fixtures' models hold.
inline void set_hash_weights(Module& module) {
  const std::vector<StateEntry> state = module.state();
  const auto is_of_norm = [&](const std::string& name, std::string_view last) {
    if (!name.ends_with(last)) return false;
    const std::string twin = name.substr(0, name.size() - last.size()) + "running_var";
    return std::any_of(state.begin(), state.end(), [&](const StateEntry& e) { return e.name == twin; });
  };
  for (const StateEntry& entry : state) {
    if (entry.tensor->dtype() != DType::kFloat) continue;
    const Shape file = to_file_shape(entry.tensor->shape(), entry.layout);
    double offset = 0.0, scale = 0.125;
    if (file.rank() == 4) {
      const bool decoder = entry.name.starts_with("decode_head") || entry.name.starts_with("scratch");
      const double gain = decoder ? 1.0 : 6.0;
      scale = std::sqrt(gain / static_cast<double>(file[1] * file[2] * file[3]));
    } else if (entry.name.ends_with("running_var") || is_of_norm(entry.name, "weight")) {
      offset = 1.0;
      scale = 0.25;
    } else if (entry.name.ends_with("bias")) {
      offset = is_of_norm(entry.name, "bias") ? 3.0 : 1.0;
    }
    copy_(*entry.tensor, from_file_layout(hash_tensor(entry.name, file, offset, scale), entry.layout));
  }
}

constexpr size_t kProjections = 16;

// Norm, then sums with hashed signs.
inline std::vector<double> digest(std::string_view key, const Tensor& file_layout) {
  const std::vector<float> x = to_vector<float>(file_layout);
  const uint64_t base = fnv1a64(std::string(key) + "#signs");
  double squares = 0.0;
  std::array<double, kProjections> sums{};
  for (size_t i = 0; i < x.size(); ++i) {
    const uint64_t bits = splitmix64(base + i);
    const double v = x[i];
    squares += v * v;
    for (size_t k = 0; k < kProjections; ++k) sums[k] += (bits >> k & 1) != 0 ? v : -v;
  }
  std::vector<double> out{std::sqrt(squares)};
  out.insert(out.end(), sums.begin(), sums.end());
  return out;
}

// |x - expected| / |expected| as the projections estimate it, or as the norms say if that is more. Norms below `floor`
// count as that: what is zero in exact arithmetic is rounding noise on both sides.
inline double digest_error(const std::vector<double>& found, const std::vector<float>& expected, double floor = 0.0) {
  double squares = 0.0;
  for (size_t k = 1; k < found.size(); ++k) {
    const double d = found[k] - expected[k];
    squares += d * d;
  }
  const double norm = std::max(static_cast<double>(expected[0]), floor);
  return std::max(std::sqrt(squares / kProjections), std::abs(found[0] - expected[0])) / norm;
}

struct ParityReport {
  double worst = 0.0;
  std::string worst_name;
};

// Compares every gradient that backward() left with the fixture's digests under `prefix`. A shift in front of a batch
// norm has gradient zero; it is measured against a thousandth of the mean norm.
inline ParityReport expect_gradients(const Module& module, const SafetensorsFile& fixture, const std::string& prefix,
                                     double tolerance) {
  double mean_norm = 0.0;
  const std::vector<StateEntry> parameters = module.parameters();
  for (const StateEntry& p : parameters)
    mean_norm += fixture.read_floats(prefix + p.name).at(0) / static_cast<double>(parameters.size());
  ParityReport report;
  for (const StateEntry& p : parameters) {
    EXPECT_TRUE(p.tensor->grad().defined()) << p.name;
    if (!p.tensor->grad().defined()) continue;
    const double error = digest_error(digest(p.name, to_file_layout(p.tensor->grad(), p.layout)),
                                      fixture.read_floats(prefix + p.name), 1e-3 * mean_norm);
    EXPECT_LE(error, tolerance) << p.name;
    if (error > report.worst) report = {error, p.name};
  }
  return report;
}

// Elements at hashed places.
inline std::vector<float> samples(std::string_view key, const Tensor& x, size_t count) {
  const std::vector<float> values = to_vector<float>(x);
  const uint64_t base = fnv1a64(std::string(key) + "#samples");
  std::vector<float> out;
  for (size_t i = 0; i < count; ++i) out.push_back(values[splitmix64(base + i) % values.size()]);
  return out;
}

inline double relative_distance(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double difference = 0.0, norm = 0.0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    if (std::isnan(d)) return INFINITY;
    difference += d * d;
    norm += static_cast<double>(b[i]) * static_cast<double>(b[i]);
  }
  return std::sqrt(difference / (norm + 1e-30));
}

// Oracles call this a network's output: logits of a DPM head, else the map after the last activation.
inline Tensor output_of(const Prediction& prediction) {
  return prediction.dpm ? dpm_logits(*prediction.dpm) : prediction.map;
}

}  // namespace depthstill::test
