#include "engine/eval/score_parts.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>

#include "engine/eval/aligned_depth.h"
#include "engine/eval/fit_pixels.h"
#include "engine/eval/least_squares.h"
#include "engine/eval/median_search.h"
#include "engine/eval/pixel_blocks.h"
#include "kernels/core/error.h"

namespace depthstill {
namespace {

constexpr size_t kHeldPixels = size_t{1} << 20;

// What the fit and the metrics need of all parts.
struct Tally {
  int64_t pixels = 0, fitted = 0, nonfinite = 0, limited = 0, negative = 0;
  size_t bad = std::numeric_limits<size_t>::max();  // the first valid pixel that is NaN or infinite
  float bad_value = 0;
  Moments moments;
  MetricSums sums;

  Tally& operator+=(const Tally& other) {
    pixels += other.pixels;
    fitted += other.fitted;
    nonfinite += other.nonfinite;
    limited += other.limited;
    negative += other.negative;
    if (other.bad < bad) {
      bad = other.bad;
      bad_value = other.bad_value;
    }
    moments += other.moments;
    sums += other.sums;
    return *this;
  }
};

class PartScorer {
 public:
  PartScorer(const Protocol& protocol, const FramePair& pair)
      : protocol_(protocol),
        pair_(pair),
        rule_(metric_rule(protocol)),
        valid_(protocol, pair.size()),
        inverted_(is_inverted(protocol, pair.kind())),
        fitted_(protocol, pair.size(), inverted_) {}

  // Counts the pixels and, with an alignment, takes the sums of its fit.
  Tally look() const {
    return over_parts([&](size_t begin, const FramePair::Part& part) { return look_at(begin, part); });
  }

  // Of kMedian, of an image with a pixel to fit.
  Fit fit_medians() const {
    const bool lower = protocol_.rules->median.lower;
    MedianSearch predictions, truths;
    over_parts([&](size_t begin, const FramePair::Part& part) {
      const Fitted fitted = fitted_values(begin, part);
      predictions.count_upper(fitted.prediction);
      truths.count_upper(fitted.truth);
      return Tally{};
    });
    predictions.begin_second();
    truths.begin_second();
    over_parts([&](size_t begin, const FramePair::Part& part) {
      const Fitted fitted = fitted_values(begin, part);
      predictions.count_lower(fitted.prediction);
      truths.count_lower(fitted.truth);
      return Tally{};
    });
    return median_fit(predictions.median(lower), truths.median(lower));
  }

  Tally measure(const AlignedDepth& depth) const {
    return over_parts([&](size_t begin, const FramePair::Part& part) { return measure_at(begin, part, depth); });
  }

  // Both at once, which needs no sums of a fit.
  Tally look_and_measure(const AlignedDepth& depth) const {
    return over_parts([&](size_t begin, const FramePair::Part& part) {
      Tally tally = look_at(begin, part);
      tally += measure_at(begin, part, depth);
      return tally;
    });
  }

 private:
  template <class Body>
  Tally over_parts(const Body& body) const {
    const auto pixels = static_cast<size_t>(pair_.size().width) * static_cast<size_t>(pair_.size().height);
    std::vector<std::exception_ptr> errors(pixels / kPixelBlock + 1);  // threads must not throw
    const Tally all = sum_pixel_blocks<Tally>(pixels, [&](size_t begin, size_t end) {
      try {
        return body(begin, pair_.read(begin, end));
      } catch (...) {
        errors[begin / kPixelBlock] = std::current_exception();
      }
      return Tally{};
    });
    for (const std::exception_ptr& error : errors) {
      if (error) std::rethrow_exception(error);
    }
    return all;
  }

  std::vector<uint8_t> valid_of(size_t begin, const FramePair::Part& part) const {
    std::vector<uint8_t> valid(part.truth.size());
    valid_.find(begin, part.truth, valid);
    return valid;
  }

  Tally look_at(size_t begin, const FramePair::Part& part) const {
    Tally tally;
    std::vector<uint8_t> mask = valid_of(begin, part);
    int64_t all_finite = 1;
    for (size_t i = 0; i < mask.size(); ++i) {
      const float value = part.prediction[i];
      tally.pixels += mask[i];
      all_finite &= value - value == 0.0f ? 1 : 0;
    }
    for (size_t i = 0; i < mask.size() && all_finite == 0; ++i) {
      const float value = part.prediction[i];
      if (std::isfinite(value)) continue;
      if (mask[i] == 0) ++tally.nonfinite;
      if (mask[i] != 0 && begin + i < tally.bad) {
        tally.bad = begin + i;
        tally.bad_value = value;
      }
      mask[i] = 0;
    }
    if (protocol_.alignment == Alignment::kNone) return tally;
    fitted_.leave(begin, part.prediction, mask);
    for (const uint8_t used : mask) tally.fitted += used;
    if (protocol_.alignment == Alignment::kMedian) return tally;
    if (!inverted_) {
      tally.moments = moments_of(part.prediction, part.truth, mask, protocol_.alignment);
      return tally;
    }
    std::vector<float> values(part.prediction.begin(), part.prediction.end());
    for (float& value : values) value = 1 / value;
    tally.moments = moments_of(values, part.truth, mask, protocol_.alignment);
    return tally;
  }

  struct Fitted {
    std::vector<float> prediction, truth;
  };
  // What the medians are taken of.
  Fitted fitted_values(size_t begin, const FramePair::Part& part) const {
    const float least = protocol_.rules->median.least;
    std::vector<uint8_t> mask = valid_of(begin, part);
    fitted_.leave(begin, part.prediction, mask);
    Fitted fitted;
    for (size_t i = 0; i < mask.size(); ++i) {
      const float value = part.prediction[i];
      if (mask[i] == 0 || !std::isfinite(value)) continue;
      fitted.prediction.push_back(std::max(inverted_ ? 1 / value : value, least));
      fitted.truth.push_back(part.truth[i]);
    }
    return fitted;
  }

  Tally measure_at(size_t begin, const FramePair::Part& part, const AlignedDepth& depth_of) const {
    Tally tally;
    const std::vector<uint8_t> valid = valid_of(begin, part);
    float depth[kAtOnce];
    for (size_t first = 0; first < valid.size(); first += kAtOnce) {
      const size_t count = std::min(kAtOnce, valid.size() - first);
      find_depths(depth_of, part.prediction.subspan(first, count), &valid[first], depth, tally);
      tally.sums.add({depth, count}, part.truth.subspan(first, count), std::span(valid).subspan(first, count), rule_);
    }
    return tally;
  }

  static constexpr size_t kAtOnce = 256;

  // Metres of at most kAtOnce predictions, those that are no number at a limit. Counts the valid ones that a limit has
  // changed, and those that are not positive.
  void find_depths(const AlignedDepth& depth_of, std::span<const float> prediction, const uint8_t* valid, float* depth,
                   Tally& tally) const {
    const auto low = static_cast<float>(protocol_.min_depth), high = static_cast<float>(protocol_.max_depth);
    float values[kAtOnce], changed[kAtOnce];
    std::copy(prediction.begin(), prediction.end(), values);
    for (size_t i = 0; inverted_ && i < prediction.size(); ++i) values[i] = 1 / values[i];
    depth_of.of({values, prediction.size()}, depth, changed);
    float limited = 0, negative = 0;
#pragma omp simd reduction(+ : limited, negative)
    for (size_t i = 0; i < prediction.size(); ++i) {
      const float value = prediction[i], found = depth[i], in = valid[i] != 0 ? 1.0f : 0.0f;
      const float finite = value - value == 0.0f ? 1.0f : 0.0f;
      limited += finite != 0.0f ? in * changed[i] : in;
      negative += found > 0.0f ? 0.0f : in * finite;
      depth[i] = finite != 0.0f ? found : value < 0.0f ? low : high;
    }
    tally.limited += static_cast<int64_t>(limited);
    tally.negative += static_cast<int64_t>(negative);
  }

  const Protocol& protocol_;
  const FramePair& pair_;
  MetricRule rule_;
  ValidPixels valid_;
  bool inverted_;
  FittedPixels fitted_;
};

}  // namespace

bool scores_by_parts(const Protocol& protocol, const ScoreOptions& options) {
  if (options.local_fit || options.boundary) return false;
  if (protocol.target == Target::kTruth && protocol.truth == TruthRule::kNoOutliers) return false;
  if (row_of(protocol.alignment).l1) return false;
  return !fits_inverse(protocol.alignment) || protocol.rules->least_inverse > 0;
}

FramePair::FramePair(const Protocol& protocol, const TruthReader& truth, const MapReader& prediction)
    : truth_(truth), prediction_(prediction), frame_(frame_rect(protocol, truth.size())) {
  check(prediction.size() == frame_.size(), "score: expected a prediction of ", frame_.size(), ", got ",
        prediction.size());
  const auto pixels = static_cast<size_t>(frame_.width) * static_cast<size_t>(frame_.height);
  if (pixels > kHeldPixels) return;
  held_truth_.resize(pixels);
  held_prediction_.resize(pixels);
  read_rows(0, frame_.height, held_truth_.data(), held_prediction_.data());
}

void FramePair::read_rows(int first, int last, float* truth, float* prediction) const {
  const auto width = static_cast<size_t>(frame_.width), stored = static_cast<size_t>(truth_.size().width);
  prediction_.read_rows(first, last, prediction);
  if (stored == width) {
    truth_.read_rows(frame_.top + first, frame_.top + last, truth);
    return;
  }
  std::vector<float> rows(static_cast<size_t>(last - first) * stored);
  truth_.read_rows(frame_.top + first, frame_.top + last, rows.data());
  for (size_t y = 0; y < static_cast<size_t>(last - first); ++y) {
    std::copy_n(&rows[y * stored + static_cast<size_t>(frame_.left)], width, truth + y * width);
  }
}

FramePair::Part FramePair::read(size_t begin, size_t end) const {
  if (!held_truth_.empty()) {
    return {std::span(held_truth_).subspan(begin, end - begin),
            std::span(held_prediction_).subspan(begin, end - begin)};
  }
  const auto width = static_cast<size_t>(frame_.width);
  const size_t first = begin / width, last = (end + width - 1) / width, pixels = (last - first) * width;
  Part part;
  part.memory.resize(2 * pixels);
  float* truth = part.memory.data();
  read_rows(static_cast<int>(first), static_cast<int>(last), truth, truth + pixels);
  part.truth = {truth + (begin - first * width), end - begin};
  part.prediction = {truth + pixels + (begin - first * width), end - begin};
  return part;
}

ImageMetrics score_parts(const Protocol& protocol, const std::string& name, const FramePair& pair) {
  const ProtocolRow& rules = *protocol.rules;
  const PartScorer scorer(protocol, pair);
  const bool fits = protocol.alignment != Alignment::kNone;
  const double least_inverse = fits_inverse(protocol.alignment) ? rules.least_inverse : 0;
  const AlignedDepth as_it_is(protocol, Fit{}, least_inverse);
  const Tally seen = fits ? scorer.look() : scorer.look_and_measure(as_it_is);
  ImageMetrics image;
  image.pixels = seen.pixels;
  if (image.pixels < rules.least_pixels) return image;
  const bool any_bad = seen.bad != std::numeric_limits<size_t>::max();
  if (any_bad && !protocol.nonfinite_to_limits) fail_nonfinite(name, pair.size(), seen.bad, seen.bad_value);
  image.nonfinite = seen.nonfinite;
  if (fits) {
    check_fitted(protocol.alignment, name, seen.fitted);
    try {
      image.fit = protocol.alignment == Alignment::kMedian ? scorer.fit_medians() : line_of(seen.moments);
    } catch (const Error& error) {
      fail(name, ": ", error.what());
    }
    image.fit.pixels = seen.fitted;
  }
  const Tally measured = fits ? scorer.measure(AlignedDepth(protocol, image.fit, least_inverse)) : seen;
  image.limited = measured.limited;
  image.negative = measured.negative;
  check_negative(protocol, name, measured.negative);
  image.metrics = measured.sums.mean(metric_rule(protocol));
  return image;
}

}  // namespace depthstill
