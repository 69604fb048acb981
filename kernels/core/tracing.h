// Profilers need this of the CUDA runtime: named ranges (NVTX), the capture range, and points in time of a stream.
// tracing.cu is the real thing (in a dry run, kernels/core/dry_run.h, times are 0); simt/tracing_host.cpp stands in for
// it in builds without CUDA, with the host's clock.
#pragma once

#include "kernels/core/stream.h"

namespace depthstill::cuda {

// A range of this thread, around what is launched until the matching pop. Ranges nest. NVTX needs neither a driver nor
// a GPU; without a tool that listens it does nothing, and with DEPTHSTILL_NVTX=OFF it is not compiled at all.
void range_push(const char* name) noexcept;
void range_pop() noexcept;

// nsys and ncu capture between these two with --capture-range=cudaProfilerApi and --profile-from-start off.
void profiler_start();
void profiler_stop();

// A point in time of a stream, unlike the events of runtime.h, which only order work.
void* create_timestamp();
void destroy_timestamp(void* timestamp) noexcept;
// Takes the time when the stream gets there. An error surfaces at the stream's next use.
void take_timestamp(void* timestamp, Stream stream) noexcept;
double elapsed_ms(void* from, void* to);  // after both were taken: synchronize(stream)

}  // namespace depthstill::cuda
