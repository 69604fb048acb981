// Timing on the device, and the cache of what it has shown.
#pragma once

#include <functional>

#include "kernels/core/stream.h"
#include "kernels/plans/plan_cache.h"

namespace depthstill::plans {

// Returns whether work may be timed on `stream` now: on a real device, with library_options().measure and without
// .deterministic, and while no graph is being captured.
bool may_measure(Stream stream);

// `run`, which gives its work to `stream`, takes so many milliseconds there: the median of several replays of a CUDA
// graph of one to ten runs, since below about 20 us the host's pace would be timed; with DEPTHSTILL_SYNC=1, of ten
// runs. The result is infinite where it cannot be captured: no training step with it could be. What takes clearly more
// than twice `best_ms` in its second run is not run again: some ways are slower a hundred times.
double median_ms(Stream stream, double best_ms, const std::function<void()>& run);

// Returns the cache of this process's device, or null where nothing is measured.
PlanCache* device_cache(Stream stream);

}  // namespace depthstill::plans
