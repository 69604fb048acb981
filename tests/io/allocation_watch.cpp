#include "tests/io/allocation_watch.h"

#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace {

thread_local bool watching = false;
thread_local long long held = 0, peak = 0;

void* take(std::size_t bytes) {
  void* memory = std::malloc(bytes);
  if (memory != nullptr && watching) {
    held += static_cast<long long>(malloc_usable_size(memory));
    peak = std::max(peak, held);
  }
  return memory;
}

void give(void* memory) {
  if (memory != nullptr && watching) held -= static_cast<long long>(malloc_usable_size(memory));
  std::free(memory);
}

}  // namespace

// All forms are here: those that were left out would be a sanitizer's, which are not made for these.
void* operator new(std::size_t bytes) {
  void* memory = take(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void* operator new[](std::size_t bytes) { return operator new(bytes); }
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return take(bytes); }
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept { return take(bytes); }
void operator delete(void* memory) noexcept { give(memory); }
void operator delete[](void* memory) noexcept { give(memory); }
void operator delete(void* memory, std::size_t) noexcept { give(memory); }
void operator delete[](void* memory, std::size_t) noexcept { give(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { give(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { give(memory); }

namespace depthstill {

AllocationWatch::AllocationWatch() {
  watching = true;
  held = peak = 0;
}
AllocationWatch::~AllocationWatch() { watching = false; }
size_t AllocationWatch::peak_bytes() const { return static_cast<size_t>(peak); }

}  // namespace depthstill
