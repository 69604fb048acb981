// Users may ask this of NVIDIA's libraries, cuDNN and cuBLASLt. On the CPU nothing here has an effect, nor need it: it
// always repeats its results, and its fp32 products are as accurate as multiply-adds in fp32.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace depthstill {

struct LibraryOptions {
  bool deterministic = false;  // no algorithm whose result may differ between runs, and none chosen by the clock
  bool strict_fp32 = false;    // fp32 products in fp32; otherwise tensor cores may round the factors to TF32
  bool measure = true;         // false: what the library's heuristic ranks first and runs, without timing
  int candidate = -1;          // >= 0: take this candidate of every list, or its last; for tests: all must agree
  bool all_plans = false;      // time all that cuDNN lists, not only a choice over its engines
  bool log = false;            // one message per way that is tried, and per choice (messages.h)
  std::optional<int64_t> workspace_cap_bytes;  // limit for one convolution; empty: a fiftieth of the device's memory
  std::string cache_folder;                    // folder of the measured choices; empty: they are not kept

  bool operator==(const LibraryOptions&) const = default;
};

// Reads DEPTHSTILL_DETERMINISTIC (0 or 1), DEPTHSTILL_FP32 (strict or tf32), DEPTHSTILL_MEASURE (0 or 1),
// DEPTHSTILL_ALL_PLANS (0 or 1), DEPTHSTILL_LOG_PLANS (0 or 1), DEPTHSTILL_WORKSPACE_MB and DEPTHSTILL_CACHE, a folder;
// without the latter $XDG_CACHE_HOME/depthstill or ~/.cache/depthstill. Throws Error for other values.
LibraryOptions library_options_from_environment();

// Returns the options of the process, at first those from the environment. They are to be changed before the first op
// runs.
LibraryOptions& library_options();

}  // namespace depthstill
