// The average rank of systems over the columns of a table.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace depthstill {

struct RankedColumn {
  std::vector<double> values;  // one per system; NaN: missing
  bool lower_is_better = true;
};

// Per system the mean over the columns of its rank, which is 1 + the number of systems that are strictly better: equal
// values share the smaller rank. Nothing for a system that lacks a value; it takes no part.
std::vector<std::optional<double>> average_ranks(std::span<const RankedColumn> columns, size_t systems);

}  // namespace depthstill
