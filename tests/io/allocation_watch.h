// How much memory operator new hands out while a test looks.
#pragma once

#include <cstddef>

namespace depthstill {

// Of this thread. One at a time.
class AllocationWatch {
 public:
  AllocationWatch();
  ~AllocationWatch();
  AllocationWatch(const AllocationWatch&) = delete;
  AllocationWatch& operator=(const AllocationWatch&) = delete;
  size_t peak_bytes() const;  // beyond what was there at the beginning
};

}  // namespace depthstill
