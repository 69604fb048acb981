#include "tools/map_agreement.h"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <limits>
#include <sstream>
#include <utility>
#include <vector>

#include "kernels/core/error.h"

namespace depthstill {
namespace {

constexpr size_t kFewestPixels = 32, kMostPixels = 16384;
constexpr int64_t kFramesForDeviation = 8;  // fewer say little about how much a list's ratios differ

struct Logs {
  std::vector<double> teacher, truth;
};

// Logarithms of both maps where both are known, thinned out evenly to at most kMostPixels.
Logs logs_of(const DepthMap& teacher, const DepthMap& truth, double max_depth, bool turned) {
  const auto width = static_cast<size_t>(truth.width), height = static_cast<size_t>(truth.height);
  std::vector<std::pair<float, float>> pairs;
  for (size_t y = 0; y < height; ++y) {
    const float* from = &teacher.values[(turned ? height - 1 - y : y) * width];
    for (size_t x = 0; x < width; ++x) {
      const float metres = truth.values[y * width + x];
      if (metres > 0 && static_cast<double>(metres) < max_depth && from[x] > 0) pairs.emplace_back(from[x], metres);
    }
  }
  const size_t stride = (pairs.size() + kMostPixels - 1) / kMostPixels;
  Logs logs;
  for (size_t i = 0; i < pairs.size(); i += stride) {
    logs.teacher.push_back(std::log(static_cast<double>(pairs[i].first)));
    logs.truth.push_back(std::log(static_cast<double>(pairs[i].second)));
  }
  return logs;
}

// The value below which `share` of the values lie. Reorders them.
double quantile(std::vector<double>& values, double share) {
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

double correlation(const std::vector<double>& a, const std::vector<double>& b) {
  const auto n = static_cast<double>(a.size());
  double x = 0, y = 0, xx = 0, yy = 0, xy = 0;
  for (size_t i = 0; i < a.size(); ++i) x += a[i] / n, y += b[i] / n;
  for (size_t i = 0; i < a.size(); ++i) {
    xx += (a[i] - x) * (a[i] - x);
    yy += (b[i] - y) * (b[i] - y);
    xy += (a[i] - x) * (b[i] - y);
  }
  return xx > 0 && yy > 0 ? xy / std::sqrt(xx * yy) : 0.0;  // a constant map
}

// Median and spread of log(teacher / truth).
std::pair<double, double> ratio_of(const Logs& logs) {
  std::vector<double> ratios(logs.truth.size());
  for (size_t i = 0; i < ratios.size(); ++i) ratios[i] = logs.teacher[i] - logs.truth[i];
  const double low = quantile(ratios, 0.16), high = quantile(ratios, 0.84);
  return {quantile(ratios, 0.5), (high - low) / 2};
}

std::string shorten(double value) {
  std::ostringstream text;
  text << std::setprecision(3) << value;
  return text.str();
}

}  // namespace

MapAgreement compare_maps(const DepthMap& teacher, const DepthMap& truth, double max_depth) {
  MapAgreement result;
  if (!(teacher.size() == truth.size())) return result;
  Logs logs = logs_of(teacher, truth, max_depth, false);
  if (logs.truth.empty()) {
    max_depth = std::numeric_limits<double>::infinity();
    logs = logs_of(teacher, truth, max_depth, false);
  }
  const Logs turned = logs_of(teacher, truth, max_depth, true);
  if (logs.truth.size() < kFewestPixels || turned.truth.size() < kFewestPixels) return result;
  result.known = true;
  const auto [ratio, spread] = ratio_of(logs);
  result.ratio = std::exp(ratio);
  result.spread = spread;
  result.correlation = correlation(logs.teacher, logs.truth);
  result.turned_spread = ratio_of(turned).second;
  result.turned_correlation = correlation(turned.teacher, turned.truth);
  return result;
}

double rise_towards_bottom(const DepthMap& map) {
  const size_t stride = (map.values.size() + kMostPixels - 1) / kMostPixels;
  std::vector<double> logs, rows;
  for (size_t i = 0; i < map.values.size(); i += stride) {
    if (!(map.values[i] > 0)) continue;
    logs.push_back(std::log(static_cast<double>(map.values[i])));
    rows.push_back(static_cast<double>(i / static_cast<size_t>(map.width)));
  }
  return logs.size() < kFewestPixels ? 0.0 : correlation(logs, rows);
}

ListAgreement agreement_of(std::span<const MapAgreement> frames) {
  std::vector<double> ratios, spreads, correlations;
  for (const MapAgreement& frame : frames) {
    if (!frame.known) continue;
    ratios.push_back(frame.ratio);
    spreads.push_back(frame.spread);
    correlations.push_back(frame.correlation);
  }
  ListAgreement list;
  list.frames = static_cast<int64_t>(ratios.size());
  if (ratios.empty()) return list;
  list.ratio = quantile(ratios, 0.5);
  list.spread = quantile(spreads, 0.5);
  list.correlation = quantile(correlations, 0.5);
  for (double& ratio : ratios) ratio = std::abs(std::log(ratio / list.ratio));
  list.deviation = quantile(ratios, 0.5);
  return list;
}

std::string oddity(const MapAgreement& frame, const ListAgreement& list) {
  if (!frame.known || list.frames < 3) return "";
  const bool turned = frame.turned_spread < 0.5 * frame.spread && frame.turned_correlation > 0.6 &&
                      frame.turned_correlation > frame.correlation + 0.2;
  if (turned) {
    return concat_text("upside down? the correlation of teacher and truth is ", shorten(frame.correlation), ", and ",
                       shorten(frame.turned_correlation), " with one of them turned over");
  }
  // A flat scene correlates badly and spreads little, a hard one spreads much and correlates.
  if (frame.spread > std::max(0.08, 2 * list.spread) && 1 - frame.correlation > 3 * (1 - list.correlation)) {
    return concat_text("maps of different frames? the correlation of teacher and truth is ", shorten(frame.correlation),
                       " where the list's is ", shorten(list.correlation));
  }
  const double most = list.frames < kFramesForDeviation ? std::log(2.0) : std::max(std::log(1.25), 8 * list.deviation);
  if (std::abs(std::log(frame.ratio / list.ratio)) > most) {
    return concat_text("another unit? teacher/truth is ", shorten(frame.ratio), " where the list's is ",
                       shorten(list.ratio));
  }
  return "";
}

}  // namespace depthstill
