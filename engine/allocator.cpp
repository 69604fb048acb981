#include "engine/allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "engine/system_memory.h"
#include "kernels/core/error.h"
#include "kernels/core/runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace depthstill {
namespace {

constexpr size_t kAlignment = 256;

// A block has poisoned bytes behind it in ASan builds, and all of it is poisoned while free.
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kRedzone = 64;
void poison(void* p, size_t bytes) { __asan_poison_memory_region(p, bytes); }
void unpoison(void* p, size_t bytes) { __asan_unpoison_memory_region(p, bytes); }
#else
constexpr size_t kRedzone = 0;
void poison(void*, size_t) {}
void unpoison(void*, size_t) {}
#endif

class Arena {
 public:
  explicit Arena(Device device) : device_(device) {}

  void* allocate(size_t wanted) {
    if (wanted == 0) return nullptr;
    const size_t bytes = (wanted + kRedzone + kAlignment - 1) / kAlignment * kAlignment;
    const std::scoped_lock lock(mutex_);
    auto fit = free_.lower_bound({bytes, nullptr});
    if (fit == free_.end()) {
      add_segment(bytes, wanted);
      fit = free_.lower_bound({bytes, nullptr});
    }
    const auto [size, start] = *fit;
    if (device_ == Device::kCpu) check_that_there_is_memory(start + bytes, wanted);
    free_.erase(fit);
    blocks_[start] = {bytes, false};
    if (size > bytes) {
      blocks_[start + bytes] = {size - bytes, true};
      free_.insert({size - bytes, start + bytes});
    }
    ++stats_.allocations;
    stats_.in_use += bytes;
    stats_.peak = std::max(stats_.peak, stats_.in_use);
    note_high_water(start + bytes);
    if (device_ == Device::kCpu) {
      unpoison(start, wanted);
      poison(start + wanted, bytes - wanted);
    }
    return start;
  }

  void deallocate(void* pointer) {
    if (pointer == nullptr) return;
    const std::scoped_lock lock(mutex_);
    auto block = blocks_.find(static_cast<char*>(pointer));
    check(block != blocks_.end() && !block->second.free, "allocator: freeing a pointer that is not allocated");
    stats_.in_use -= block->second.bytes;
    if (device_ == Device::kCpu) poison(pointer, block->second.bytes);
    block->second.free = true;
    if (auto next = std::next(block); next != blocks_.end() && mergeable(block, next)) {
      free_.erase({next->second.bytes, next->first});
      block->second.bytes += next->second.bytes;
      blocks_.erase(next);
    }
    if (block != blocks_.begin()) {
      if (auto before = std::prev(block); mergeable(before, block)) {
        free_.erase({before->second.bytes, before->first});
        before->second.bytes += block->second.bytes;
        blocks_.erase(block);
        block = before;
      }
    }
    free_.insert({block->second.bytes, block->first});
  }

  void release_unused() {
    const std::scoped_lock lock(mutex_);
    release_free_segments();
  }

  MemoryStats stats() {
    const std::scoped_lock lock(mutex_);
    return stats_;
  }
  void reset_peak() {
    const std::scoped_lock lock(mutex_);
    stats_.peak = stats_.in_use;
  }

 private:
  struct Block {
    size_t bytes = 0;
    bool free = false;
  };
  using Blocks = std::map<char*, Block>;
  struct Segment {
    size_t bytes = 0;
    char* high_water = nullptr;  // end of the part that was ever used
  };

  static double gib(size_t bytes) { return std::round(static_cast<double>(bytes) / (1 << 30) * 100) / 100; }

  // Nothing to do on the CPU, where memory stays reserved.
  void release_free_segments() {
    if (device_ == Device::kCpu) return;
    for (auto segment = segments_.begin(); segment != segments_.end();) {
      const auto block = blocks_.find(segment->first);
      if (!block->second.free || block->second.bytes != segment->second.bytes) {
        ++segment;
        continue;
      }
      cuda::free_device(segment->first);
      stats_.reserved -= segment->second.bytes;
      free_.erase({block->second.bytes, block->first});
      blocks_.erase(block);
      segment = segments_.erase(segment);
    }
  }

  // Neighbours in one segment that are both free. Segments that happen to touch stay apart.
  bool mergeable(Blocks::iterator a, Blocks::iterator b) const {
    return a->second.free && b->second.free && a->first + a->second.bytes == b->first && !segments_.contains(b->first);
  }

  Segment& segment_of(char* end) { return std::prev(segments_.lower_bound(end))->second; }

  // Segments on the CPU are address space: a block that was never used takes memory as it is written to.
  void check_that_there_is_memory(char* end, size_t wanted) {
    constexpr std::ptrdiff_t kSmall = std::ptrdiff_t{16} << 20;  // the question takes 20 us
    const std::ptrdiff_t growth = end - segment_of(end).high_water;
    if (growth < kSmall) return;
    const auto left = available_memory();
    if (left && static_cast<size_t>(growth) > *left) fail_for_want_of_memory(wanted, *left);
  }
  [[noreturn]] void fail_for_want_of_memory(size_t wanted, std::optional<size_t> left) const {
    throw OutOfMemory(concat_text("out of ", device_, " memory: wanted ", gib(wanted), " GiB with ", gib(stats_.in_use),
                                  " GiB in use", left ? concat_text(" and ", gib(*left), " GiB left") : ""));
  }

  void note_high_water(char* end) {
    Segment& segment = segment_of(end);
    if (end > segment.high_water) {
      segment.high_water = end;
      ++stats_.high_water_moves;
    }
  }

  void add_segment(size_t bytes, size_t wanted) {
    auto [start, size] = device_ == Device::kCpu ? reserve_cpu(bytes) : reserve_cuda(bytes);
    if (start == nullptr && device_ == Device::kCuda) {
      release_free_segments();  // free segments that are each too small may be enough together
      std::tie(start, size) = reserve_cuda(bytes);
    }
    if (start == nullptr) fail_for_want_of_memory(wanted, std::nullopt);
    stats_.reserved += size;
    ++stats_.system_allocations;
    segments_[start] = {size, start};
    blocks_[start] = {size, true};
    free_.insert({size, start});
  }

  // Address space only: pages become resident when touched, in huge pages where the system offers them (a first touch
  // of 4 KiB pages runs at a few GB/s).
  static std::pair<char*, size_t> reserve_cpu(size_t bytes) {
    constexpr size_t kHuge = size_t{2} << 20;
    const size_t least = (bytes + kHuge - 1) / kHuge * kHuge;
    for (size_t size = std::max(least, size_t{64} << 30); size >= least; size /= 2) {
      void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p == MAP_FAILED) continue;
      madvise(p, size, MADV_HUGEPAGE);
      return {static_cast<char*>(p), size};
    }
    return {nullptr, 0};
  }

  static std::pair<char*, size_t> reserve_cuda(size_t bytes) {
    for (const size_t size : {std::max(bytes, size_t{256} << 20), bytes}) {
      if (void* p = cuda::malloc_device(size)) return {static_cast<char*>(p), size};
    }
    return {nullptr, 0};
  }

  Device device_;
  std::mutex mutex_;
  Blocks blocks_;                            // every block, free or not, by address
  std::set<std::pair<size_t, char*>> free_;  // best fit: the smallest that suffices, then the lowest address
  std::map<char*, Segment> segments_;        // segments by start
  MemoryStats stats_;
};

// The arenas are never destroyed: tensors with static lifetime may be freed after them.
Arena& arena(Device device) {
  static Arena& cpu = *new Arena(Device::kCpu);
  static Arena& cuda = *new Arena(Device::kCuda);
  return device == Device::kCpu ? cpu : cuda;
}

std::atomic<AllocationHook*>& hook_of(Device device) {
  static std::atomic<AllocationHook*> hooks[2];
  return hooks[static_cast<int>(device)];
}

}  // namespace

void set_allocation_hook(Device device, AllocationHook* hook) {
  AllocationHook* before = nullptr;
  if (hook == nullptr) {
    hook_of(device) = nullptr;
  } else {
    check(hook_of(device).compare_exchange_strong(before, hook), "allocator: ", device, " has a hook already");
  }
}

void* allocate(Device device, size_t bytes) {
  AllocationHook* hook = bytes > 0 ? hook_of(device).load() : nullptr;
  void* pointer = hook != nullptr ? hook->allocate(bytes) : nullptr;
  if (pointer != nullptr) return pointer;
  pointer = arena(device).allocate(bytes);
  if (hook != nullptr) hook->allocated(pointer, bytes);
  return pointer;
}

void* allocate_outside_step(Device device, size_t bytes) { return arena(device).allocate(bytes); }

void deallocate(Device device, void* pointer) {
  AllocationHook* hook = hook_of(device);
  if (hook == nullptr || !hook->deallocate(pointer)) arena(device).deallocate(pointer);
}

void release_unused_memory(Device device) { arena(device).release_unused(); }
MemoryStats memory_stats(Device device) { return arena(device).stats(); }
void reset_peak_memory(Device device) { arena(device).reset_peak(); }

void copy_bytes(void* to, Device to_device, const void* from, Device from_device, size_t bytes) {
  if (bytes == 0) return;
  if (to_device == Device::kCpu && from_device == Device::kCpu) {
    std::memcpy(to, from, bytes);
    return;
  }
  const auto direction = from_device == Device::kCpu ? cuda::Direction::kToDevice
                         : to_device == Device::kCpu ? cuda::Direction::kToHost
                                                     : cuda::Direction::kOnDevice;
  cuda::copy(to, from, bytes, direction, stream_of(Device::kCuda));
}

void zero_bytes(Device device, void* pointer, size_t bytes) {
  if (bytes == 0) return;
  if (device == Device::kCpu) {
    std::memset(pointer, 0, bytes);
  } else {
    cuda::zero(pointer, bytes, stream_of(device));
  }
}

}  // namespace depthstill
