#include "engine/eval/median_search.h"

#include <bit>

#include "kernels/core/error.h"

namespace depthstill {
namespace {

constexpr size_t kBins = size_t{1} << 16;

// Integers in the order of the floats.
uint32_t key_of(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}
float value_of(uint32_t key) { return std::bit_cast<float>(key >> 31 != 0 ? key & 0x7fffffffu : ~key); }

// The bin of the value at `rank`, which becomes its rank within the bin.
uint32_t find_bin(const std::vector<int64_t>& counts, int64_t& rank) {
  uint32_t bin = 0;
  while (rank >= counts[bin]) rank -= counts[bin++];
  return bin;
}

void add(std::vector<int64_t>& sums, const std::vector<uint32_t>& counts) {
  for (size_t i = 0; i < kBins; ++i) sums[i] += counts[i];
}

}  // namespace

MedianSearch::MedianSearch() : upper_(kBins) {
  for (Middle& middle : middles_) middle.lower.resize(kBins);
}

void MedianSearch::count_upper(std::span<const float> values) {
  std::vector<uint32_t> counts(kBins);
  for (const float value : values) ++counts[key_of(value) >> 16];
  const std::scoped_lock lock(mutex_);
  total_ += static_cast<int64_t>(values.size());
  add(upper_, counts);
}

void MedianSearch::begin_second() {
  middles_[0].rank = (total_ - 1) / 2;
  middles_[1].rank = total_ / 2;
  for (Middle& middle : middles_) middle.bin = find_bin(upper_, middle.rank);
}

void MedianSearch::count_lower(std::span<const float> values) {
  for (Middle& middle : middles_) {
    std::vector<uint32_t> counts(kBins);
    for (const float value : values) {
      const uint32_t key = key_of(value);
      if (key >> 16 == middle.bin) ++counts[key & 0xffffu];
    }
    const std::scoped_lock lock(mutex_);
    add(middle.lower, counts);
  }
}

float MedianSearch::median(bool lower) const {
  std::array<float, 2> values{};
  for (size_t i = 0; i < 2; ++i) {
    int64_t rank = middles_[i].rank;
    const uint32_t low_bits = find_bin(middles_[i].lower, rank);
    values[i] = value_of(middles_[i].bin << 16 | low_bits);
  }
  return lower || total_ % 2 != 0 ? values[0] : 0.5f * (values[0] + values[1]);
}

Fit median_fit(float prediction, float truth) {
  check(prediction > 0, "median scaling needs a positive median, got ", prediction);
  return {static_cast<double>(truth / prediction), 0};
}

}  // namespace depthstill
