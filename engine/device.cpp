#include "engine/device.h"

#include <string>

#include "engine/allocator.h"
#include "kernels/core/dry_run.h"
#include "kernels/core/error.h"
#include "kernels/core/runtime.h"

namespace depthstill {
namespace {

bool emulated = false;

bool may_have_cuda() { return built_with_cuda() || emulated || cuda::dry_running(); }

// One block of the device's arena, which grows. Ops run on one thread and, on CUDA, on one stream, so a block that is
// given back while work on it is queued is only reused by later work.
class ArenaScratch final : public Scratch {
 public:
  explicit ArenaScratch(Device device) : device_(device) {}
  void* get(size_t bytes) override {
    if (bytes > bytes_) {
      give_back();
      pointer_ = allocate_outside_step(device_, bytes);
      bytes_ = bytes;
    }
    return pointer_;
  }
  void give_back() {
    if (!keep_) deallocate(device_, pointer_);
    keep_ = false;
    pointer_ = nullptr;
    bytes_ = 0;
  }
  void keep() { keep_ = true; }

 private:
  Device device_;
  void* pointer_ = nullptr;
  size_t bytes_ = 0;
  bool keep_ = false;
};

ArenaScratch& scratch_of(Device device) {
  static ArenaScratch cpu(Device::kCpu);
  static ArenaScratch cuda(Device::kCuda);
  return device == Device::kCpu ? cpu : cuda;
}

struct CudaState {
  bool usable = false;
  std::string reason;
  void* stream = nullptr;
};

const CudaState& cuda_state() {
  static const CudaState state = [] {
    CudaState s;
    if (may_have_cuda()) {
      s.usable = cuda::device_count(&s.reason) > 0;
      if (s.usable) s.stream = cuda::create_stream();
    }
    return s;
  }();
  return state;
}

}  // namespace

bool built_with_cuda() { return !cuda::emulated(); }

bool available(Device device) {
  if (device == Device::kCpu) return true;
  return may_have_cuda() && cuda_state().usable;
}

const char* cuda_unavailable_reason() {
  if (available(Device::kCuda)) return "";
  return built_with_cuda() ? cuda_state().reason.c_str() : "this build has no CUDA";
}

void enable_emulated_cuda() {
  check(!built_with_cuda(), "the emulator stands in for CUDA only in builds without CUDA");
  emulated = true;
}

void enable_dry_run() { cuda::enable_dry_run(); }

Device default_device() { return built_with_cuda() && available(Device::kCuda) ? Device::kCuda : Device::kCpu; }

Device parse_device(std::string_view text) {
  if (text == "auto") return default_device();
  if (text == "cpu") return Device::kCpu;
  check(text == "cuda", "device: expected cpu, cuda or auto, got '", text, "'");
  check(available(Device::kCuda), "device cuda is not available: ", cuda_unavailable_reason());
  return Device::kCuda;
}

Stream stream_of(Device device) {
  return {device == Device::kCpu ? nullptr : cuda_state().stream, &scratch_of(device)};
}

void keep_scratch(Device device) { scratch_of(device).keep(); }
void give_back_scratch(Device device) { scratch_of(device).give_back(); }

void synchronize(Device device) {
  if (device == Device::kCuda) cuda::synchronize(stream_of(device));
}

}  // namespace depthstill
