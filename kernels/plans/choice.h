// The choice among several ways of computing the same: the one that was chosen on this device before, else the fastest,
// else, where nothing may be timed, the first that runs.
#pragma once

#include <algorithm>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/messages.h"
#include "kernels/plans/plan_cache.h"

namespace depthstill::plans {

template <class Way>
struct Chooser {
  PlanCache* cache = nullptr;  // may be null
  // Empty: nothing may be timed. May throw Error: the way is left out. `best` is the least so far, infinite at first.
  std::function<double(const Way&, double best)> milliseconds;
  // Tries a way that is remembered, or where nothing may be timed. May throw Error: others are looked at. Empty: it is
  // taken as it is.
  std::function<void(const Way&)> run;
  std::function<std::string(const Way&)> record;  // one line; may throw Error: the way is taken, but not remembered
  std::function<std::optional<Way>(const std::string& record)> rebuild;  // makes the way again from it, or nothing
  int candidate = -1;  // >= 0: this one or the last, without a look at cache or clock
  bool log = false;
};

// All candidates, or just the first.
enum class Wanted : uint8_t { kAll, kFirst };
template <class Way>
using Candidates = std::function<std::vector<Way>(Wanted)>;

// The line for a way; empty if there is none.
template <class Way>
std::string record_of(const Chooser<Way>& by, const Way& way) {
  try {
    return by.record(way);
  } catch (const Error&) {
    return "";
  }
}

// The way that was chosen before, if it still runs.
template <class Way>
std::optional<Way> remembered(const std::string& key, const Chooser<Way>& by) {
  const std::optional<std::string> record = by.cache != nullptr ? by.cache->find(key) : std::nullopt;
  std::optional<Way> way = record ? by.rebuild(*record) : std::nullopt;
  if (!way || !by.run) return way;
  try {
    by.run(*way);
  } catch (const Error&) {
    return std::nullopt;
  }
  return way;
}

// The first way that runs. Further ones are only made when it does not.
template <class Way>
Way first_that_runs(const std::string& key, const Chooser<Way>& by, const Candidates<Way>& candidates) {
  std::string refused;
  for (const Wanted wanted : {Wanted::kFirst, Wanted::kAll}) {
    std::vector<Way> ways = candidates(wanted);
    check(!ways.empty(), "no library offers a way to compute ", key);
    for (Way& way : ways) {
      try {
        if (by.run) by.run(way);
      } catch (const Error& error) {
        refused = error.what();
        continue;
      }
      if (by.log) send_message("plan: ", key, ": ", record_of(by, way));
      return std::move(way);
    }
  }
  fail("no way to compute ", key, " runs: ", refused);
}

// `candidates` are only made when they are needed; the best guess stands first. Throws Error with `key` if there are
// none, or none that runs.
template <class Way>
Way choose(const std::string& key, const Chooser<Way>& by, const Candidates<Way>& candidates) {
  if (by.candidate >= 0) {
    std::vector<Way> ways = candidates(Wanted::kAll);
    check(!ways.empty(), "no library offers a way to compute ", key);
    return std::move(ways[std::min(static_cast<size_t>(by.candidate), ways.size() - 1)]);
  }
  if (std::optional<Way> way = remembered(key, by)) return std::move(*way);
  if (!by.milliseconds) return first_that_runs(key, by, candidates);
  std::vector<Way> ways = candidates(Wanted::kAll);
  check(!ways.empty(), "no library offers a way to compute ", key);
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
  const std::string record = record_of(by, ways[best]);
  if (by.log) {
    send_message("plan: ", key, ": number ", best + 1, " of ", ways.size(), ", ", best_ms, " ms: ", record);
  }
  if (by.cache != nullptr && !record.empty()) by.cache->put(key, record);
  return std::move(ways[best]);
}

}  // namespace depthstill::plans
