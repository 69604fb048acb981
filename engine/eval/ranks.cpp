#include "engine/eval/ranks.h"

#include <algorithm>
#include <cmath>

namespace depthstill {

std::vector<std::optional<double>> average_ranks(std::span<const RankedColumn> columns, size_t systems) {
  std::vector<std::optional<double>> ranks(systems);
  std::vector<size_t> complete;
  for (size_t i = 0; i < systems; ++i) {
    const bool has_all = std::none_of(columns.begin(), columns.end(),
                                      [&](const RankedColumn& column) { return std::isnan(column.values[i]); });
    if (has_all && !columns.empty()) complete.push_back(i);
  }
  for (const size_t i : complete) {
    int64_t sum = 0;
    for (const RankedColumn& column : columns) {
      sum += 1 + std::count_if(complete.begin(), complete.end(), [&](size_t other) {
               const double mine = column.values[i], theirs = column.values[other];
               return column.lower_is_better ? theirs < mine : theirs > mine;
             });
    }
    ranks[i] = static_cast<double>(sum) / static_cast<double>(columns.size());
  }
  return ranks;
}

}  // namespace depthstill
