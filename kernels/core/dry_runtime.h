// What the functions of kernels/core/runtime.h do in a dry run: included by their two implementations only.
#pragma once

#include "kernels/core/runtime.h"

namespace depthstill::cuda::dry {

DeviceInfo device_info();
void* malloc_device(size_t bytes);
void free_device(void* pointer) noexcept;
void copy(void* to, const void* from, size_t bytes, Direction direction);
void zero(void* to, size_t bytes);
void synchronize();
void synchronize_event();
void* new_handle();  // of a stream or an event: never null, means nothing
bool capturing();
void begin_capture();
void* end_capture();
void abandon_capture() noexcept;
void launch_graph(void* graph);
void destroy_graph(void* graph) noexcept;

}  // namespace depthstill::cuda::dry
