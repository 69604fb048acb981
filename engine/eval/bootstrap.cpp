#include "engine/eval/bootstrap.h"

#include <algorithm>

#include "kernels/core/parallel.h"

namespace depthstill {
namespace {

// Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014.
uint64_t splitmix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

double quantile(const std::vector<double>& sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<size_t>(at);
  if (low + 1 == sorted.size()) return sorted[low];
  return sorted[low] + (at - static_cast<double>(low)) * (sorted[low + 1] - sorted[low]);
}

}  // namespace

int64_t bootstrap_index(uint64_t seed, int64_t draw, int64_t position, int64_t n) {
  const uint64_t counter = (static_cast<uint64_t>(draw) << 32) + static_cast<uint64_t>(position);
  const uint64_t bits = splitmix64(seed ^ splitmix64(counter)) >> 32;
  return static_cast<int64_t>((bits * static_cast<uint64_t>(n)) >> 32);
}

std::vector<Interval> bootstrap(std::span<const ImageMetrics> images, std::span<const MetricField> fields,
                                const BootstrapOptions& options) {
  std::vector<const Metrics*> scored;
  for (const ImageMetrics& image : images) {
    if (image.metrics) scored.push_back(&*image.metrics);
  }
  if (options.draws <= 0 || scored.empty()) return {};
  const auto n = static_cast<int64_t>(scored.size());
  std::vector<std::vector<double>> means(fields.size(), std::vector<double>(static_cast<size_t>(options.draws)));
  parallel_for(options.draws, 8, [&](int64_t draw) {
    std::vector<double> sums(fields.size(), 0.0);
    for (int64_t j = 0; j < n; ++j) {
      const Metrics& image = *scored[static_cast<size_t>(bootstrap_index(options.seed, draw, j, n))];
      for (size_t f = 0; f < fields.size(); ++f) sums[f] += image.*fields[f].value;
    }
    for (size_t f = 0; f < fields.size(); ++f) means[f][static_cast<size_t>(draw)] = sums[f] / static_cast<double>(n);
  });
  std::vector<Interval> intervals;
  for (std::vector<double>& mean : means) {
    std::sort(mean.begin(), mean.end());
    intervals.push_back({quantile(mean, 0.025), quantile(mean, 0.975)});
  }
  return intervals;
}

}  // namespace depthstill
