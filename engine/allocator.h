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

// The same, for memory that is not part of a step although a step may ask for it first: scratch, tables.
void* allocate_outside_step(Device device, size_t bytes);

struct MemoryStats {
  size_t in_use = 0;               // bytes in live blocks
  size_t peak = 0;                 // most bytes ever in live blocks since reset_peak_memory()
  size_t reserved = 0;             // bytes of address space (CPU) or device memory (CUDA) obtained from the system
  int64_t system_allocations = 0;  // segments obtained from the system
  int64_t allocations = 0;         // blocks handed out
  int64_t high_water_moves = 0;    // times the used end of a segment grew: 0 in a step means no new memory was touched
};
MemoryStats memory_stats(Device device);
void reset_peak_memory(Device device);

// Gives segments that are wholly free back to the system (CUDA; CPU memory stays reserved).
void release_unused_memory(Device device);

// Lets the scratch memory of the device's stream (device.h) go, unless a graph has its address: it is as large as the
// largest way of computing something that was tried.
void give_back_scratch(Device device);

// Takes the place of a device's arena where it wants to (step_arena.h).
class AllocationHook {
 public:
  virtual ~AllocationHook() = default;
  virtual void* allocate(size_t bytes) = 0;                 // null: the arena shall allocate the block
  virtual void allocated(void* pointer, size_t bytes) = 0;  // the arena has allocated a block
  virtual bool deallocate(void* pointer) = 0;               // false: the arena shall free the block
};
void set_allocation_hook(Device device, AllocationHook* hook);  // null: none

// Copies between devices; asynchronous only within one device.
void copy_bytes(void* to, Device to_device, const void* from, Device from_device, size_t bytes);
void zero_bytes(Device device, void* pointer, size_t bytes);

}  // namespace depthstill
