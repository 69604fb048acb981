// A dry run: the CUDA code paths run on the host as they would for an H100, up to each call of the device, and nothing
// is executed. launch() records a kernel instead of starting it, device memory is an address range that nobody may
// touch, and what is copied to the host is zero. It gives memory plans and launch counts where there is no GPU.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

namespace depthstill::cuda {

struct Launch {
  std::string where;                        // "kernels/add.cu:17", or the library and what it was asked for
  std::array<unsigned, 3> grid{}, block{};  // 0 for a library's call
  size_t shared_bytes = 0;                  // dynamic
};

// A DryRun records what was asked of the device.
struct DryRun {
  std::vector<Launch> launches;  // launches in order, those of replayed graphs included
  int64_t graph_launches = 0;
  int64_t copies_to_device = 0, copies_to_host = 0, copies_on_device = 0, zeros = 0;
  int64_t synchronizations = 0, event_waits = 0;  // waits of the host
  int64_t mallocs = 0, frees = 0;
};

inline constexpr size_t kH100Bytes = size_t{80} << 30;

// Makes the rest of the process a dry run; to be called before anything else of CUDA.
void enable_dry_run(size_t memory_bytes = kH100Bytes);

namespace detail {
inline bool dry_running = false;
}
inline bool dry_running() { return detail::dry_running; }

// The record since the last take.
const DryRun& dry_run();
DryRun take_dry_run();

// ---- for launch.h and the wrappers of CUDA libraries --------------------------------------------------------------

// Throws Error where an H100 would refuse the launch.
void record_launch(const char* file, int line, std::array<unsigned, 3> grid, std::array<unsigned, 3> block,
                   size_t shared_bytes);
void record_library_call(std::string what);
// Throws Error unless `pointer` is null or in the simulated memory.
void check_device_pointer(const char* what, const void* pointer);

// Does the same for a kernel's argument of any type.
template <class T>
void check_argument(const char* file, const T& argument) {
  if constexpr (std::is_pointer_v<T>) check_device_pointer(file, argument);
}

}  // namespace depthstill::cuda
