#include "engine/eval/alignment.h"

#include <algorithm>
#include <vector>

#include "kernels/core/error.h"

namespace depthstill {
namespace {

float median(std::vector<float>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2) return *middle;
  return 0.5f * (*middle + *std::max_element(values.begin(), middle));
}

Fit fit_median(const std::string& name, std::span<const float> prediction, std::span<const float> truth,
               std::span<const uint8_t> valid) {
  std::vector<float> p, g;
  for (size_t i = 0; i < valid.size(); ++i) {
    if (!valid[i]) continue;
    p.push_back(prediction[i]);
    g.push_back(truth[i]);
  }
  if (p.empty()) return {};
  const float middle = median(p);
  check(middle > 0, name, ": median scaling needs a positive median, got ", middle);
  return {static_cast<double>(median(g) / middle), 0};
}

}  // namespace

const char* describe(Alignment alignment) {
  return alignment == Alignment::kMedian ? "median scaling per image" : "no median scaling";
}

Fit fit(Alignment alignment, const std::string& name, std::span<const float> prediction, std::span<const float> truth,
        std::span<const uint8_t> valid) {
  return alignment == Alignment::kMedian ? fit_median(name, prediction, truth, valid) : Fit{};
}

}  // namespace depthstill
