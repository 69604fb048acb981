#include "engine/init.h"

#include <cmath>
#include <vector>

#include "engine/random.h"
#include "kernels/core/parallel.h"

namespace depthstill {
namespace {

uint32_t fnv1a32(std::string_view text) {
  uint32_t hash = 0x811C9DC5u;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x01000193u;
  return hash;
}

// x[i] = draw(random), where the stream stands at i * draws_per_value, whoever computes it.
template <class F>
void fill(const Tensor& x, uint64_t seed, std::string_view name, uint64_t draws_per_value, F draw) {
  const uint64_t stream = stream_id(RandomUse::kInitialise, 0, fnv1a32(name));
  std::vector<float> values(static_cast<size_t>(x.numel()));
  parallel_ranges(x.numel(), 4096, [&](int64_t first, int64_t last, int) {
    Philox random(seed, stream, static_cast<uint64_t>(first) * draws_per_value);
    for (int64_t i = first; i < last; ++i) values[static_cast<size_t>(i)] = static_cast<float>(draw(random));
  });
  copy_(x, tensor<float>(x.shape(), values));
}

// fan: the kernel's area times side 0 (outputs) or 1 (inputs) of a convolution's weight.
void kaiming_normal(const Tensor& weight, Layout layout, int side, uint64_t seed, std::string_view name) {
  const Shape file = to_file_shape(weight.shape(), layout);
  check(file.rank() == 4, "kaiming_normal: expected a convolution's weight, got ", weight.shape());
  const double deviation = std::sqrt(2.0 / static_cast<double>(file[side] * file[2] * file[3]));
  fill(weight, seed, name, 4, [=](Philox& random) { return deviation * random.normal(); });
}

}  // namespace

void kaiming_normal_fan_out(const Tensor& weight, Layout layout, uint64_t seed, std::string_view name) {
  kaiming_normal(weight, layout, 0, seed, name);
}

void kaiming_normal_fan_in(const Tensor& weight, Layout layout, uint64_t seed, std::string_view name) {
  kaiming_normal(weight, layout, 1, seed, name);
}

void uniform_fan_in(const Tensor& parameter, int64_t fan_in, uint64_t seed, std::string_view name) {
  check(fan_in > 0, "uniform_fan_in: expected fan_in > 0, got ", fan_in);
  const double bound = 1.0 / std::sqrt(static_cast<double>(fan_in));
  fill(parameter, seed, name, 2, [=](Philox& random) { return random.uniform(-bound, bound); });
}

void make_positive(const Tensor& parameter) {
  std::vector<float> values = to_vector<float>(parameter);
  for (float& value : values) value = std::abs(value);
  copy_(parameter, tensor<float>(parameter.shape(), values));
}

void normal(const Tensor& parameter, double deviation, uint64_t seed, std::string_view name) {
  fill(parameter, seed, name, 4, [=](Philox& random) { return deviation * random.normal(); });
}

}  // namespace depthstill
