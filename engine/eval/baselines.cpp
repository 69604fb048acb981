#include "engine/eval/baselines.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <exception>
#include <numeric>
#include <optional>

#include "engine/data/list_file.h"
#include "engine/data/pixels.h"
#include "engine/eval/evaluate.h"
#include "kernels/core/error.h"
#include "kernels/core/parallel.h"

namespace depthstill {
namespace {

constexpr int kMaxRows = 512;
constexpr double kNearest = 1e-3, kFarthest = 1e3;  // metres: what is beyond counts as these
constexpr int64_t kMapsAtOnce = 32;                 // maps that are decoded side by side, and so in memory together

int row_of(int y, int height, int rows) {
  return static_cast<int>((2 * int64_t{y} + 1) * rows / (2 * int64_t{height}));
}

// Positive floats sort as their bits do, and all but the first 10 bits of the mantissa make steps of about a
// thousandth.
class DepthBins {
 public:
  DepthBins(double least, double most)
      : first_(key(static_cast<float>(least))), count_(key(static_cast<float>(most)) - first_ + 1) {}

  size_t count() const { return count_; }
  size_t bin(float metres) const {
    const uint32_t found = key(metres);
    return found <= first_ ? 0 : std::min<size_t>(found - first_, count_ - 1);
  }
  // Where half of the weights is reached; 0 if all of them are 0.
  template <class T>
  double median(std::span<const T> weights) const {
    const double half = std::accumulate(weights.begin(), weights.end(), 0.0) / 2;
    if (half <= 0) return 0;
    double below = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      const auto weight = static_cast<double>(weights[i]);
      if (below + weight >= half) return edge(i) + (edge(i + 1) - edge(i)) * (half - below) / weight;
      below += weight;
    }
    return edge(weights.size());
  }

 private:
  static constexpr int kDropped = 13;
  static uint32_t key(float value) { return std::bit_cast<uint32_t>(value) >> kDropped; }
  double edge(size_t i) const {
    return static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(first_ + i) << kDropped));
  }

  uint32_t first_;
  size_t count_;
};

// Counts of depths: over all images for the constant, by relative row for the map.
class Counts {
 public:
  Counts(const Protocol& protocol, int rows)
      : protocol_(protocol),
        bins_(std::max(protocol.min_depth, kNearest), std::min(protocol.max_depth, kFarthest)),
        rows_(rows),
        weights_(bins_.count()),
        by_row_(static_cast<size_t>(rows) * bins_.count()) {}

  void add(const DepthMap& truth) {
    const std::vector<uint8_t> valid = valid_mask(protocol_, truth.size(), truth.values);
    const auto pixels = std::accumulate(valid.begin(), valid.end(), int64_t{0});
    if (pixels == 0) return;
    ++images_;
    size_t i = 0;
    for (int y = 0; y < truth.height; ++y) {
      uint32_t* row = by_row_.data() + static_cast<size_t>(row_of(y, truth.height, rows_)) * bins_.count();
      for (int x = 0; x < truth.width; ++x, ++i) {
        if (valid[i] == 0) continue;
        const size_t bin = bins_.bin(truth.values[i]);
        ++row[bin];
        weights_[bin] += 1 / (static_cast<double>(pixels) * static_cast<double>(truth.values[i]));
      }
    }
  }

  int64_t images() const { return images_; }
  float constant() const { return static_cast<float>(bins_.median(std::span<const double>(weights_))); }
  std::vector<float> row_medians() const {
    std::vector<float> medians;
    for (int r = 0; r < rows_; ++r) {
      const std::span<const uint32_t> all(by_row_);
      medians.push_back(
          static_cast<float>(bins_.median(all.subspan(static_cast<size_t>(r) * bins_.count(), bins_.count()))));
    }
    return medians;
  }

 private:
  const Protocol& protocol_;
  DepthBins bins_;
  int rows_;
  int64_t images_ = 0;
  std::vector<double> weights_;
  std::vector<uint32_t> by_row_;
};

// Rows of 0 take the nearest other value, the upper one of two that are equally near.
std::vector<float> filled(const std::vector<float>& rows) {
  std::vector<float> result = rows;
  const auto count = static_cast<std::ptrdiff_t>(rows.size());
  for (std::ptrdiff_t r = 0; r < count; ++r) {
    for (std::ptrdiff_t d = 1; result[static_cast<size_t>(r)] == 0 && d < count; ++d) {
      for (const std::ptrdiff_t other : {r + d, r - d}) {
        if (other >= 0 && other < count && rows[static_cast<size_t>(other)] > 0)
          result[static_cast<size_t>(r)] = rows[static_cast<size_t>(other)];
      }
    }
  }
  return result;
}

// Frames of up to kMapsAtOnce items; those of items without truth stay empty.
std::vector<DepthMap> read_frames(const Protocol& protocol, std::span<const EvalItem> items, const MapFormat& format) {
  std::vector<DepthMap> frames(items.size());
  std::vector<std::exception_ptr> errors(items.size());  // threads must not throw
  parallel_for(static_cast<int64_t>(items.size()), 1, [&](int64_t i) {
    const EvalItem& item = items[static_cast<size_t>(i)];
    if (item.truth.empty()) return;
    try {
      frames[static_cast<size_t>(i)] = read_truth_frame(protocol, item, format);
    } catch (...) {
      errors[static_cast<size_t>(i)] = std::current_exception();
    }
  });
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
  return frames;
}

}  // namespace

Baselines measure_baselines(const Protocol& protocol, const std::string& list, std::span<const EvalItem> items,
                            const MapFormat& truth_format,
                            const std::function<void(int64_t done, int64_t total)>& progress) {
  std::optional<Counts> counts;  // the first frame says how many rows there are
  const auto total = static_cast<int64_t>(items.size());
  for (int64_t done = 0; done < total; done += kMapsAtOnce) {
    if (progress) progress(done, total);
    const auto part =
        items.subspan(static_cast<size_t>(done), static_cast<size_t>(std::min(kMapsAtOnce, total - done)));
    for (const DepthMap& frame : read_frames(protocol, part, truth_format)) {
      if (frame.empty()) continue;
      if (!counts) counts.emplace(protocol, std::min(frame.height, kMaxRows));
      counts->add(frame);
    }
  }
  if (progress) progress(total, total);
  check(counts && counts->images() > 0, list, ": expected depth to take baselines from, found none");
  const float constant = counts->constant();
  char text[80];
  std::snprintf(text, sizeof text, "constant %.3g m, the one that is least in abs_rel", static_cast<double>(constant));
  return {list,
          counts->images(),
          {{"constant", text, {constant}},
           {"row_median", "median of each row, whatever the image", filled(counts->row_medians())}}};
}

DepthMap baseline_map(const Baseline& baseline, ImageSize size) {
  DepthMap map{size.width, size.height, {}};
  map.values.reserve(static_cast<size_t>(size.width) * static_cast<size_t>(size.height));
  for (int y = 0; y < size.height; ++y) {
    const auto row = static_cast<size_t>(row_of(y, size.height, static_cast<int>(baseline.rows.size())));
    map.values.insert(map.values.end(), static_cast<size_t>(size.width), baseline.rows[row]);
  }
  return map;
}

}  // namespace depthstill
