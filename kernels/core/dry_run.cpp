#include "kernels/core/dry_run.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <utility>

#include "kernels/core/device_runtime.h"
#include "kernels/core/error.h"

namespace depthstill::cuda {
namespace {

// An H100 allows no more than this (CUDA programming guide, compute capability 9.0).
constexpr std::array<unsigned, 3> kMaxGrid = {2147483647, 65535, 65535}, kMaxBlock = {1024, 1024, 64};
constexpr uint64_t kMaxThreads = 1024;
constexpr size_t kMaxSharedBytes = 227 << 10;

constexpr size_t kAlignment = 256;

struct State {
  DryRun record;
  char* base = nullptr;
  size_t total_bytes = 0;
  std::map<size_t, size_t> used;  // offset -> bytes
  uintptr_t handles = 0;
  bool capturing = false;
  std::vector<Launch> captured;
};

State& state() {
  static State& s = *new State;  // streams and tensors with static lifetime may outlive it otherwise
  return s;
}

void check_not_capturing(const char* what) {
  check(!state().capturing, "dry run: ", what, " while a graph is captured, which CUDA refuses");
}

void add(Launch launch) {
  State& s = state();
  (s.capturing ? s.captured : s.record.launches).push_back(std::move(launch));
}

// A copy or a memset between begin_capture and end_capture becomes a node of the graph.
void count(int64_t& counter, const char* what) {
  if (state().capturing) {
    state().captured.push_back({what, {}, {}, 0});
  } else {
    ++counter;
  }
}

}  // namespace

void enable_dry_run(size_t memory_bytes) {
  State& s = state();
  if (s.base != nullptr) {
    check(memory_bytes == s.total_bytes, "dry run: expected ", s.total_bytes, " bytes of memory again, got ",
          memory_bytes);
    return;
  }
  void* range =
      mmap(nullptr, memory_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);  // no access at all
  check(range != MAP_FAILED, "dry run: cannot reserve ", memory_bytes, " bytes of address space");
  s.base = static_cast<char*>(range);
  s.total_bytes = memory_bytes;
  detail::dry_running = true;
}

const DryRun& dry_run() { return state().record; }
DryRun take_dry_run() { return std::exchange(state().record, {}); }

void record_launch(const char* file, int line, std::array<unsigned, 3> grid, std::array<unsigned, 3> block,
                   size_t shared_bytes) {
  for (size_t i = 0; i < 3; ++i) {
    check(grid[i] <= kMaxGrid[i], file, ":", line, ": launch: expected at most ", kMaxGrid[i], " blocks in dimension ",
          i, ", got ", grid[i]);
    check(block[i] >= 1 && block[i] <= kMaxBlock[i], file, ":", line, ": launch: expected 1 to ", kMaxBlock[i],
          " threads in dimension ", i, ", got ", block[i]);
  }
  const uint64_t threads = uint64_t{block[0]} * block[1] * block[2];
  check(threads <= kMaxThreads, file, ":", line, ": launch: expected at most ", kMaxThreads, " threads a block, got ",
        threads);
  check(shared_bytes <= kMaxSharedBytes, file, ":", line, ": launch: expected at most ", kMaxSharedBytes,
        " bytes of shared memory, got ", shared_bytes);
  add({concat_text(file, ":", line), grid, block, shared_bytes});
}

void record_library_call(std::string what) { add({std::move(what), {}, {}, 0}); }

void check_device_pointer(const char* what, const void* pointer) {
  const State& s = state();
  const auto* p = static_cast<const char*>(pointer);
  check(p == nullptr || (p >= s.base && p < s.base + s.total_bytes), "dry run: ", what,
        ": expected a pointer to device memory, got one to the host's");
}

namespace {

class DryRuntime final : public Runtime {
 public:
  int device_count(std::string*) override { return 1; }
  DeviceInfo device_info() override {
    const State& s = state();
    DeviceInfo info;
    info.name = "NVIDIA H100 80GB HBM3 (dry run: nothing is computed)";
    info.compute_major = 9;
    info.multiprocessors = 132;
    info.total_bytes = info.free_bytes = s.total_bytes;
    for (const auto& [offset, bytes] : s.used) info.free_bytes -= bytes;
    return info;
  }

  // Takes the first gap that is large enough.
  void* malloc_device(size_t wanted) override {
    check_not_capturing("allocating");
    State& s = state();
    ++s.record.mallocs;
    const size_t bytes = (std::max<size_t>(wanted, 1) + kAlignment - 1) / kAlignment * kAlignment;
    size_t offset = 0;
    for (const auto& [start, size] : s.used) {
      if (start - offset >= bytes) break;
      offset = start + size;
    }
    if (bytes > s.total_bytes - offset) return nullptr;
    s.used[offset] = bytes;
    return s.base + offset;
  }
  void free_device(void* pointer) noexcept override {
    if (pointer == nullptr) return;
    State& s = state();
    ++s.record.frees;
    s.used.erase(static_cast<size_t>(static_cast<char*>(pointer) - s.base));
  }

  void copy(void* to, const void* from, size_t bytes, Direction direction, Stream) override {
    DryRun& record = state().record;
    if (direction != Direction::kToHost) check_device_pointer("copy", to);
    if (direction != Direction::kToDevice) check_device_pointer("copy", from);
    if (direction == Direction::kOnDevice) return count(record.copies_on_device, "copy");
    check_not_capturing("copying between host and device");
    if (direction == Direction::kToHost) std::memset(to, 0, bytes);
    ++(direction == Direction::kToHost ? record.copies_to_host : record.copies_to_device);
  }
  void zero(void* to, size_t, Stream) override {
    check_device_pointer("zero", to);
    count(state().record.zeros, "zero");
  }
  void synchronize(Stream) override {
    check_not_capturing("waiting for a stream");
    ++state().record.synchronizations;
  }

  // Handles of streams and events are never null and mean nothing.
  void* create_stream() override { return new_handle(); }
  void destroy_stream(void*) noexcept override {}
  void* create_event() override { return new_handle(); }
  void destroy_event(void*) noexcept override {}
  void record_event(void*, Stream) override {}
  void wait_for_event(Stream, void*) override {}
  void synchronize_event(void*) override {
    check_not_capturing("waiting for an event");
    ++state().record.event_waits;
  }

  void* malloc_pinned(size_t bytes) override {
    void* pointer = std::malloc(bytes);
    check(pointer != nullptr, "cuda: allocating ", bytes, " bytes of host memory failed");
    return pointer;
  }
  void free_pinned(void* pointer) noexcept override { std::free(pointer); }

  bool capturing(Stream) override { return state().capturing; }
  void begin_capture(Stream) override {
    check_not_capturing("a second capture");
    state().capturing = true;
  }
  void* end_capture(Stream) override {
    State& s = state();
    check(s.capturing, "dry run: the end of a capture that was not begun");
    s.capturing = false;
    return new std::vector<Launch>(std::exchange(s.captured, {}));
  }
  void abandon_capture(Stream) noexcept override {
    state().capturing = false;
    state().captured.clear();
  }
  void launch_graph(void* graph, Stream) override {
    check_not_capturing("launching a graph");
    const auto& nodes = *static_cast<const std::vector<Launch>*>(graph);
    DryRun& record = state().record;
    record.launches.insert(record.launches.end(), nodes.begin(), nodes.end());
    ++record.graph_launches;
  }
  void destroy_graph(void* graph) noexcept override { delete static_cast<std::vector<Launch>*>(graph); }

 private:
  static void* new_handle() { return reinterpret_cast<void*>(++state().handles); }
};

}  // namespace

Runtime& dry_runtime() {
  static DryRuntime& runtime = *new DryRuntime;  // as `state`
  return runtime;
}

}  // namespace depthstill::cuda
