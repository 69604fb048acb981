// A Runtime does what runtime.h asks for: the device's does it, that of a dry run keeps a record of it (dry_run.h).
#pragma once

#include "kernels/core/runtime.h"

namespace depthstill::cuda {

// These are the functions of runtime.h, which says what they do.
class Runtime {
 public:
  virtual int device_count(std::string* reason) = 0;
  virtual DeviceInfo device_info() = 0;
  virtual void* malloc_device(size_t bytes) = 0;
  virtual void free_device(void* pointer) noexcept = 0;
  virtual void copy(void* to, const void* from, size_t bytes, Direction direction, Stream stream) = 0;
  virtual void zero(void* to, size_t bytes, Stream stream) = 0;
  virtual void synchronize(Stream stream) = 0;
  virtual void* create_stream() = 0;
  virtual void destroy_stream(void* handle) noexcept = 0;
  virtual void* malloc_pinned(size_t bytes) = 0;
  virtual void free_pinned(void* pointer) noexcept = 0;
  virtual void* create_event() = 0;
  virtual void destroy_event(void* event) noexcept = 0;
  virtual void record_event(void* event, Stream stream) = 0;
  virtual void wait_for_event(Stream stream, void* event) = 0;
  virtual void synchronize_event(void* event) = 0;
  virtual bool capturing(Stream stream) = 0;
  virtual void begin_capture(Stream stream) = 0;
  virtual void* end_capture(Stream stream) = 0;
  virtual void abandon_capture(Stream stream) noexcept = 0;
  virtual void launch_graph(void* graph, Stream stream) = 0;
  virtual void destroy_graph(void* graph) noexcept = 0;

 protected:
  ~Runtime() = default;
};

Runtime& device_runtime();  // core/runtime.cu, or simt/runtime_host.cpp in builds without CUDA
Runtime& dry_runtime();     // core/dry_run.cpp

}  // namespace depthstill::cuda
