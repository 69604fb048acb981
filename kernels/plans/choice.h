// The choice among several ways of computing the same: the one that was chosen on this device before, else the fastest,
// else, where nothing may be timed, the first.
#pragma once

#include <algorithm>
#include <cstdio>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/error.h"
#include "kernels/plans/plan_cache.h"

namespace depthstill::plans {

template <class Way>
struct Chooser {
  PlanCache* cache = nullptr;  // may be null
  // Empty: nothing may be timed. May throw Error: the way is left out. `best` is the least so far, infinite at first.
  std::function<double(const Way&, double best)> milliseconds;
  std::function<std::string(const Way&)> record;                         // one line from which
  std::function<std::optional<Way>(const std::string& record)> rebuild;  // makes the way again, or nothing
  int candidate = -1;  // >= 0: this one or the last, without a look at cache or clock
  bool log = false;
};

// `candidates` are only made when they are needed; the best guess stands first. Throws Error with `key` if there are
// none, or none that runs.
template <class Way>
Way choose(const std::string& key, const Chooser<Way>& by, const std::function<std::vector<Way>()>& candidates) {
  if (by.candidate >= 0) {
    std::vector<Way> ways = candidates();
    check(!ways.empty(), "no library offers a way to compute ", key);
    return std::move(ways[std::min(static_cast<size_t>(by.candidate), ways.size() - 1)]);
  }
  if (by.cache != nullptr) {
    if (const auto record = by.cache->find(key)) {
      if (std::optional<Way> way = by.rebuild(*record)) return std::move(*way);
    }
  }
  std::vector<Way> ways = candidates();
  check(!ways.empty(), "no library offers a way to compute ", key);
  if (!by.milliseconds) {
    if (by.log) std::fprintf(stderr, "plan: %s: %s\n", key.c_str(), by.record(ways.front()).c_str());
    return std::move(ways.front());
  }
  size_t best = ways.size();
  double best_ms = std::numeric_limits<double>::infinity();
  std::string refused;
  for (size_t i = 0; i < ways.size(); ++i) {
    try {
      const double ms = by.milliseconds(ways[i], best_ms);
      if (best == ways.size() || ms < best_ms) {
        best = i;
        best_ms = ms;
      }
    } catch (const Error& error) {
      refused = error.what();
    }
  }
  check(best < ways.size(), "no way to compute ", key, " runs: ", refused);
  const std::string record = by.record(ways[best]);
  if (by.log) {
    std::fprintf(stderr, "plan: %s: number %zu of %zu, %.4f ms: %s\n", key.c_str(), best + 1, ways.size(), best_ms,
                 record.c_str());
  }
  if (by.cache != nullptr) by.cache->put(key, record);
  return std::move(ways[best]);
}

}  // namespace depthstill::plans
