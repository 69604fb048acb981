// The one way of choosing that ops with several ways share: by the device's cache, else by its clock, else the first
// way that runs.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "kernels/core/library_options.h"
#include "kernels/core/runtime.h"
#include "kernels/plans/choice.h"
#include "kernels/plans/timer.h"

namespace depthstill::plans {

// The ways of computing one problem.
template <class Way>
struct Ways {
  std::string name;                          // name of the problem: all that the choice depends on besides the device
  Candidates<Way> candidates;                // best guess first
  std::function<void(const Way&)> run = {};  // may throw Error: another way is taken
  // A way as a line of the cache, and back. Without them no way is timed: the first that runs is taken.
  std::function<std::string(const Way&)> record = {};
  std::function<std::optional<Way>(const std::string& record)> rebuild = {};
  std::function<std::string(const Way&)> describe = {};  // a few words for messages; empty: the record
};

// Chooses a way, which has run when it is returned.
template <class Way>
Way choose_and_run(Stream stream, const Ways<Way>& ways) {
  bool has_run = false;
  Chooser<Way> by;
  by.run = [&](const Way& way) {
    ways.run(way);
    has_run = true;
  };
  by.check_device = [&] {
    if (!cuda::capturing(stream)) cuda::synchronize(stream);
  };
  if (ways.record) {
    const LibraryOptions& options = library_options();
    by.cache = device_cache(stream);
    by.candidate = options.candidate;
    by.log = options.log;
    by.record = ways.record;
    by.rebuild = ways.rebuild;
    by.describe = ways.describe;
    if (may_measure(stream)) {
      by.milliseconds = [&](const Way& way, double best_ms) {
        return median_ms(stream, best_ms, [&] { ways.run(way); });
      };
    }
  }
  Way way = choose<Way>(ways.name, by, ways.candidates);
  if (!has_run) ways.run(way);
  return way;
}

// Calls run(way) with the way that `chosen` has for the key; the first time, chooses one of ways(), whose `run` is set
// here.
template <class Key, class Way, class Run, class MakeWays>
void run_chosen(std::map<Key, Way>& chosen, const Key& key, Stream stream, const Run& run, const MakeWays& ways) {
  const auto found = chosen.find(key);
  if (found != chosen.end()) return run(found->second);
  Ways<Way> all = ways();
  all.run = run;
  chosen.emplace(key, choose_and_run(stream, all));
}

}  // namespace depthstill::plans
