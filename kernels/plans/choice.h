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
  // Empty: nothing may be timed. May throw Error: the way is left out. `best` is the least so far, infinite at first;
  // an infinite time is that of a way which no graph can hold.
  std::function<double(const Way&, double best)> milliseconds;
  // Tries a way that is remembered, or where nothing may be timed. May throw Error: others are looked at. Empty: it is
  // taken as it is.
  std::function<void(const Way&)> run;
  std::function<std::string(const Way&)> record;  // one line; may throw Error: the way is taken, but not remembered
  std::function<std::optional<Way>(const std::string& record)> rebuild;  // makes the way again from it, or nothing
  std::function<std::string(const Way&)> describe;  // a few words for messages, never throws; empty: the record
  // Throws Error after a way has failed if the device is of no use any more, as after a kernel's bad address. Empty:
  // nobody asks.
  std::function<void()> check_device;
  int candidate = -1;  // >= 0: this one or the last, without a look at cache or clock
  bool log = false;    // a message per way that is tried, and one for that which is taken
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

// What is said and thrown about the ways of one problem while they are tried.
template <class Way>
class Trial {
 public:
  Trial(const std::string& key, const Chooser<Way>& by) : key_(key), by_(by) {}

  void ran(const std::string& which, const Way& way, const std::string& how) const {
    if (by_.log) send_message("plan: ", key_, ": ", which, ", ", words_of(way), ", ", how);
  }
  // Keeps the first refusal; throws Error where it was the device that failed, since all others would fail as well.
  void refused(const std::string& which, const Way& way, const Error& error) {
    ran(which, way, concat_text("refused: ", error.what()));
    if (first_refusal_.empty()) {
      first_refusal_ = error.what();
      out_of_memory_ = dynamic_cast<const OutOfMemory*>(&error) != nullptr;
    }
    if (!by_.check_device) return;
    try {
      by_.check_device();
    } catch (const Error& device) {
      fail("the device failed while running ", key_, ", ", which, ", ", words_of(way), ": ", error.what(), "; then ",
           device.what(), "; DEPTHSTILL_SYNC=1 with --no-graph names the kernel");
    }
  }
  [[noreturn]] void none_runs() const {
    const std::string text = concat_text("no way to compute ", key_, " runs: ", first_refusal_);
    if (out_of_memory_) throw OutOfMemory(text);
    throw Error(text);
  }

 private:
  std::string words_of(const Way& way) const {
    if (by_.describe) return by_.describe(way);
    return by_.record ? record_of(by_, way) : "";
  }

  const std::string& key_;
  const Chooser<Way>& by_;
  std::string first_refusal_;
  bool out_of_memory_ = false;
};

// The way that was chosen before, if it still runs.
template <class Way>
std::optional<Way> remembered(const std::string& key, const Chooser<Way>& by) {
  const std::optional<std::string> record = by.cache != nullptr ? by.cache->find(key) : std::nullopt;
  std::optional<Way> way = record ? by.rebuild(*record) : std::nullopt;
  if (!way || !by.run) return way;
  Trial<Way> trial(key, by);
  try {
    by.run(*way);
  } catch (const Error& error) {
    trial.refused("remembered", *way, error);
    return std::nullopt;
  }
  trial.ran("remembered", *way, "taken");
  return way;
}

// The first way that runs. Further ones are only made when it does not.
template <class Way>
Way first_that_runs(const std::string& key, const Chooser<Way>& by, const Candidates<Way>& candidates) {
  Trial<Way> trial(key, by);
  for (const Wanted wanted : {Wanted::kFirst, Wanted::kAll}) {
    std::vector<Way> ways = candidates(wanted);
    check(!ways.empty(), "no library offers a way to compute ", key);
    for (size_t i = 0; i < ways.size(); ++i) {
      const std::string which = concat_text("untimed ", i + 1, " of ", ways.size());
      try {
        if (by.run) by.run(ways[i]);
      } catch (const Error& error) {
        trial.refused(which, ways[i], error);
        continue;
      }
      trial.ran(which, ways[i], "taken");
      return std::move(ways[i]);
    }
  }
  trial.none_runs();
}

// `candidates` are only made when they are needed; the best guess stands first. Throws Error with `key` if there are
// none, or none that runs, or if the device fails on the way.
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
  Trial<Way> trial(key, by);
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  size_t best = ways.size();
  double best_ms = kInfinite;
  for (size_t i = 0; i < ways.size(); ++i) {
    const std::string which = concat_text(i + 1, " of ", ways.size());
    try {
      const double ms = by.milliseconds(ways[i], best_ms);
      trial.ran(which, ways[i], ms < kInfinite ? concat_text(ms, " ms") : "cannot be captured in a graph");
      if (best == ways.size() || ms < best_ms) {
        best = i;
        best_ms = ms;
      }
    } catch (const Error& error) {
      trial.refused(which, ways[i], error);
    }
  }
  if (best == ways.size()) trial.none_runs();
  trial.ran(concat_text(best + 1, " of ", ways.size()), ways[best], "taken");
  const std::string record = record_of(by, ways[best]);
  if (by.cache != nullptr && !record.empty()) by.cache->put(key, record);
  return std::move(ways[best]);
}

}  // namespace depthstill::plans
