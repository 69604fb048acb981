#include "engine/eval/score.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "engine/eval/aligned_depth.h"
#include "engine/eval/boundary.h"
#include "engine/eval/fit_pixels.h"
#include "engine/eval/pixel_blocks.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

using Mask = std::vector<uint8_t>;

int64_t count(const Mask& mask) { return std::accumulate(mask.begin(), mask.end(), int64_t{0}); }

// The centre of the frame.
Mask centre_mask(ImageSize size, const Mask& mask) {
  Mask centre(mask.size(), 0);
  const int top = size.height / 4, left = size.width / 4;
  for (int y = top; y < top + size.height / 2; ++y) {
    const auto row = static_cast<std::ptrdiff_t>(y) * size.width + left;
    std::copy_n(mask.begin() + row, size.width / 2, centre.begin() + row);
  }
  return centre;
}

struct Counts {
  int64_t limited = 0, negative = 0;
  Counts& operator+=(const Counts& other) {
    limited += other.limited;
    negative += other.negative;
    return *this;
  }
};

class Scorer {
 public:
  Scorer(const Protocol& protocol, const std::string& name, const DepthMap& truth)
      : protocol_(protocol), rules_(*protocol.rules), name_(name), truth_(truth) {
    valid_ = valid_mask(protocol, truth.size(), truth.values);
    known_ = valid_;
  }

  const Mask& valid() const { return valid_; }

  // Numbers that are not finite are refused where they count, or wait for a limit, and become 0; returns how many do
  // not count.
  int64_t settle_nonfinite(std::vector<float>& values) {
    int64_t unused = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      float& value = values[i];
      if (std::isfinite(value)) continue;
      if (valid_[i] && !protocol_.nonfinite_to_limits) fail_nonfinite(name_, truth_.size(), i, value);
      if (valid_[i]) limited_.push_back({i, value < 0 ? protocol_.min_depth : protocol_.max_depth});
      if (!valid_[i]) ++unused;
      known_[i] = 0;
      value = 0;
    }
    return unused;
  }

  // The valid pixels that the alignment sees.
  Mask fitted(const std::vector<float>& values, bool inverted) const {
    return fit_mask(protocol_, truth_.size(), values, inverted, known_);
  }

  // Fits over `pixels` and makes limited depths of the values, in place.
  Fit make_depth(std::vector<float>& values, const Mask& pixels, Counts& counts) const {
    const Fit found = fit(protocol_.alignment, rules_.median, name_, values, truth_.values, pixels);
    const AlignedDepth depth_of(protocol_, found, least_inverse());
    counts = sum_pixel_blocks<Counts>(values.size(), [&](size_t begin, size_t end) {
      Counts block;
      std::vector<float> limited(end - begin);
      const std::span<float> part = std::span(values).subspan(begin, end - begin);
      depth_of.of(part, part.data(), limited.data());
      for (size_t i = begin; i < end; ++i) {
        if (!known_[i]) continue;
        block.limited += limited[i - begin] != 0;
        block.negative += !(values[i] > 0);
      }
      return block;
    });
    for (const auto& [at, depth] : limited_) values[at] = static_cast<float>(depth);
    counts.limited += static_cast<int64_t>(limited_.size());
    return found;
  }

  std::optional<Metrics> metrics(const std::vector<float>& values, const Mask& pixels) const {
    return compute_metrics(values, truth_.values, pixels, metric_rule(protocol_));
  }

 private:
  // 1/m; 0 where no inverse depth is fitted.
  double least_inverse() const {
    if (!fits_inverse(protocol_.alignment)) return 0;
    if (rules_.least_inverse > 0) return rules_.least_inverse;
    float greatest = 0;
    for (size_t i = 0; i < valid_.size(); ++i) {
      if (valid_[i]) greatest = std::max(greatest, truth_.values[i]);
    }
    return 1 / static_cast<double>(greatest);
  }

  const Protocol& protocol_;
  const ProtocolRow& rules_;
  const std::string& name_;
  const DepthMap& truth_;
  Mask valid_, known_;                              // known_: valid, and the prediction is a number
  std::vector<std::pair<size_t, double>> limited_;  // valid pixels without a number, and the depths that they take
};

}  // namespace

void fail_nonfinite(const std::string& name, ImageSize frame, size_t pixel, float value) {
  const auto width = static_cast<size_t>(frame.width);
  fail(name, ": row ", pixel / width, ", column ", pixel % width, " is ", value,
       ", expected a finite number where there is truth");
}

void check_negative(const Protocol& protocol, const std::string& name, int64_t pixels) {
  const ProtocolRow& rules = *protocol.rules;
  const bool takes_logarithms = std::any_of(rules.metrics.begin(), rules.metrics.end(),
                                            [](const MetricField& field) { return field.value == &Metrics::rmse_log; });
  check(pixels == 0 || !takes_logarithms, name, ": expected depths > 0 at valid pixels, found ", pixels,
        " that are not, which protocol ", rules.name, " does not clamp");
}

bool is_inverted(const Protocol& protocol, const MapKind& prediction) {
  return prediction.quantity != row_of(protocol.alignment).quantity &&
         prediction.ambiguity != Ambiguity::kScaleAndShift;
}

void check_kind(const Protocol& protocol, const MapKind& prediction, const std::string& where) {
  const AlignmentRow& row = row_of(protocol.alignment);
  if (prediction.ambiguity <= row.ambiguity) return;
  std::vector<AlignmentRow> affine;
  for (const AlignmentRow& one : alignments()) {
    if (one.ambiguity == Ambiguity::kScaleAndShift) affine.push_back(one);
  }
  fail(where, " is ", name_of(prediction), ", expected ", name_of({Quantity::kDepth, row.ambiguity}),
       ", or an affine alignment to make metres of it (",
       list_text(affine, [](const AlignmentRow& one) { return one.name; }), ")");
}

ImageScore score(const Protocol& protocol, const std::string& name, const DepthMap& truth, DepthMap& prediction,
                 const ScoreOptions& options) {
  Scorer scorer(protocol, name, truth);
  ImageScore result;
  ImageMetrics& image = result.metrics;
  image.pixels = count(scorer.valid());
  if (image.pixels < protocol.rules->least_pixels) return result;
  std::vector<float>& values = prediction.values;
  image.nonfinite = scorer.settle_nonfinite(values);
  const bool inverted = is_inverted(protocol, prediction.kind);
  const Mask fitted = scorer.fitted(values, inverted);
  if (inverted) {
    for (float& value : values) value = 1 / value;
  }
  const std::vector<float> given = options.local_fit ? values : std::vector<float>();
  Counts counts;
  image.fit = scorer.make_depth(values, fitted, counts);
  prediction.kind = kMetricDepth;
  image.limited = counts.limited;
  image.negative = counts.negative;
  check_negative(protocol, name, counts.negative);
  image.metrics = scorer.metrics(values, scorer.valid());
  if (options.boundary) image.boundary_f1 = boundary_f1(prediction, truth);
  if (!options.local_fit) return result;
  const Mask centre = centre_mask(truth.size(), scorer.valid()), centre_fit = centre_mask(truth.size(), fitted);
  if (count(centre_fit) == 0) return result;
  std::vector<float> local = given;
  static_cast<void>(scorer.make_depth(local, centre_fit, counts));
  result.centre = GlobalLocal{*scorer.metrics(values, centre), *scorer.metrics(local, centre)};
  return result;
}

}  // namespace depthstill
