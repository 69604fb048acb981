// An AllocationWatch measures how much memory operator new hands out while a test looks.
#pragma once

#include <cstddef>

namespace depthstill {

// It counts the memory of its thread, which can have one watch at a time.
class AllocationWatch {
 public:
  AllocationWatch();
  ~AllocationWatch();
  AllocationWatch(const AllocationWatch&) = delete;
  AllocationWatch& operator=(const AllocationWatch&) = delete;
  size_t peak_bytes() const;  // bytes beyond those at the beginning
};

}  // namespace depthstill
