#include "engine/eval/bootstrap.h"

#include <algorithm>
#include <unordered_map>

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

// What is drawn at once.
struct Unit {
  double images = 0;
  std::vector<double> sums;  // of each field over its images
};

std::vector<Unit> units_of(std::span<const ImageMetrics> images, std::span<const MetricField> fields,
                           const SceneOf& scene_of) {
  std::vector<Unit> units;
  std::unordered_map<std::string, size_t> scenes;
  for (const ImageMetrics& image : images) {
    if (!image.metrics) continue;
    const size_t at = scene_of ? scenes.try_emplace(scene_of(image.name), units.size()).first->second : units.size();
    if (at == units.size()) units.push_back({0, std::vector<double>(fields.size(), 0.0)});
    ++units[at].images;
    for (size_t f = 0; f < fields.size(); ++f) units[at].sums[f] += *image.metrics.*fields[f].value;
  }
  return units;
}

}  // namespace

int64_t bootstrap_index(uint64_t seed, int64_t draw, int64_t position, int64_t n) {
  const uint64_t counter = (static_cast<uint64_t>(draw) << 32) + static_cast<uint64_t>(position);
  const uint64_t bits = splitmix64(seed ^ splitmix64(counter)) >> 32;
  return static_cast<int64_t>((bits * static_cast<uint64_t>(n)) >> 32);
}

std::vector<Interval> bootstrap(std::span<const ImageMetrics> images, std::span<const MetricField> fields,
                                const BootstrapOptions& options, const SceneOf& scene_of) {
  const std::vector<Unit> units = units_of(images, fields, scene_of);
  if (options.draws <= 0 || units.empty()) return {};
  const auto n = static_cast<int64_t>(units.size());
  std::vector<std::vector<double>> means(fields.size(), std::vector<double>(static_cast<size_t>(options.draws)));
  parallel_for(options.draws, 8, [&](int64_t draw) {
    std::vector<double> sums(fields.size(), 0.0);
    double count = 0;
    for (int64_t j = 0; j < n; ++j) {
      const Unit& unit = units[static_cast<size_t>(bootstrap_index(options.seed, draw, j, n))];
      count += unit.images;
      for (size_t f = 0; f < fields.size(); ++f) sums[f] += unit.sums[f];
    }
    for (size_t f = 0; f < fields.size(); ++f) means[f][static_cast<size_t>(draw)] = sums[f] / count;
  });
  std::vector<Interval> intervals;
  for (std::vector<double>& mean : means) {
    std::sort(mean.begin(), mean.end());
    intervals.push_back({quantile(mean, 0.025), quantile(mean, 0.975)});
  }
  return intervals;
}

}  // namespace depthstill
