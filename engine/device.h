// A Device is where tensors live; run() picks the implementation of an op there.
#pragma once

#include <cstdint>
#include <ostream>
#include <string_view>
#include <type_traits>

#include "kernels/core/stream.h"

namespace depthstill {

enum class Device : uint8_t { kCpu, kCuda };

constexpr const char* name_of(Device device) { return device == Device::kCpu ? "cpu" : "cuda"; }
inline std::ostream& operator<<(std::ostream& out, Device device) { return out << name_of(device); }

// False where the SIMT emulator took the place of the CUDA libraries when this was built.
bool built_with_cuda();

// True where `device` can hold tensors. CUDA: a CUDA build with a driver and a GPU, or a build without CUDA in which
// enable_emulated_cuda() was called (tests), or any build after enable_dry_run().
bool available(Device device);

// The reason why available(Device::kCuda) is false, in one line; empty when it is true.
const char* cuda_unavailable_reason();

// Lets the SIMT emulator's kernels stand in for the GPU, on host memory. This works only in builds without CUDA.
void enable_emulated_cuda();

// Makes the CUDA code paths record their work instead of doing it, as kernels/core/dry_run.h says. The call comes
// before the first use of the device.
void enable_dry_run();

// CUDA in a build with CUDA if it is available, else CPU.
Device default_device();

// "cpu", "cuda" or "auto"; throws Error for anything else and for a device that is not available.
Device parse_device(std::string_view text);

// The stream that ops on `device` use, with its scratch memory.
Stream stream_of(Device device);

// Scratch memory handed out so far stays where it is, for a graph that has its address; larger scratch gets another
// place.
void keep_scratch(Device device);

// Waits until all work given to `device` is done.
void synchronize(Device device);

// Picks the implementation for `device`; both must have the same signature, so a missing or diverging twin does not
// compile. The stream is filled in.
template <class... P>
auto run(Device device, void (*on_cpu)(Stream, P...), void (*on_cuda)(Stream, P...)) {
  auto* f = device == Device::kCpu ? on_cpu : on_cuda;
  return [f, device](std::type_identity_t<P>... args) { f(stream_of(device), args...); };
}

}  // namespace depthstill
