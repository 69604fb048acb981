// Device memory for tensors: one arena per device. Blocks come from large segments by best fit and merge with their
// free neighbours, so a training step asks the system for nothing once the first step has run, and the peak in use is
// also what stays resident.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/device.h"

namespace depthstill {

void* allocate(Device device, size_t bytes);  // 64-byte (CPU) or 256-byte (CUDA) alignment; throws Error when full
void deallocate(Device device, void* pointer);

struct MemoryStats {
  size_t in_use = 0;               // bytes in live blocks
  size_t peak = 0;                 // most bytes ever in live blocks since reset_peak_memory()
  size_t reserved = 0;             // bytes of address space (CPU) or device memory (CUDA) obtained from the system
  int64_t system_allocations = 0;  // segments obtained from the system
  int64_t high_water_moves = 0;    // times the used end of a segment grew: 0 in a step means no new memory was touched
};
MemoryStats memory_stats(Device device);
void reset_peak_memory(Device device);

// Copies between devices; asynchronous only within one device.
void copy_bytes(void* to, Device to_device, const void* from, Device from_device, size_t bytes);
void zero_bytes(Device device, void* pointer, size_t bytes);

}  // namespace depthstill
