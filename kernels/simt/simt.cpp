// The scheduler behind simt.h. One block at a time, one CUDA thread at a time: a fiber runs threads back to back until
// one of them has to wait, so that kernels without barriers cost little more than a function call per thread.
//
// Race detection (builds with -fsanitize=thread): every CUDA thread is a TSan fiber, switches order nothing, and
// happens-before exists where CUDA has it: at launch, at block barriers, at __syncwarp; a shuffle orders nothing. All
// state is plain arrays, because the linker could merge an instrumented std::vector<int> of another file into this one.
//
// DEPTHSTILL_SIMT_SKIP=add.cu:42 in the environment ignores the barrier on that line: tests/simt/mutate.py checks with
// it that the tests need every barrier.
#include "kernels/simt/simt.h"

#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "kernels/core/error.h"
#include "kernels/core/runtime.h"
#include "kernels/simt/fiber.h"

// The static __shared__ arrays of all kernels; absent when there is none.
extern "C" {
extern char __start_simt_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_simt_shared[] __attribute__((weak, visibility("hidden")));
}

namespace depthstill::simt {
namespace {

using cuda::Schedule;

constexpr int kWarp = 32;
constexpr int kMaxThreads = 1024;
constexpr size_t kMaxSharedBytes = 227 << 10;  // per block, compute capability 9.0
#if defined(DEPTHSTILL_SIMT_TSAN)
constexpr bool kReuseFibers = false;  // one identity, hence fiber, per thread
#else
constexpr bool kReuseFibers = true;
#endif

enum class State : uint8_t { kUnstarted, kReady, kAtBarrier, kAtWarp, kDone };

struct Thread {
  uint3 index{};
  State state = State::kUnstarted;
  WarpOp op = WarpOp::kSync;  // the collective it waits in: op, mask, source_lane, value -> result
  uint32_t mask = 0;
  int source_lane = 0;
  uint64_t value = 0, result = 0;
  Fiber* fiber = nullptr;
  Where where;  // the line it waits at
};

struct Warp {
  uint32_t waiting = 0;  // lanes inside a collective
  uint32_t exited = 0;   // lanes that returned from the kernel
  uint32_t absent = 0;   // lanes that the block does not have
};

struct Scheduler {
  Schedule schedule = Schedule::kForward;
  uint32_t random = 1;
  std::atomic<bool> busy{false};
  Where skip;  // barrier to ignore; line 0 if none
  bool skip_announced = false;

  Where launch;
  void (*body)(const void*) = nullptr;
  const void* body_state = nullptr;
  std::unique_ptr<char[]> shared;

  Thread threads[kMaxThreads];
  Warp warps[kMaxThreads / kWarp];
  int size = 0;      // threads in the block
  int live = 0;      // threads that have not returned
  int current = -1;  // the running thread; -1 outside kernels
  int start_order[kMaxThreads];
  int started = 0;
  int ready[kMaxThreads];  // ring buffer of runnable threads
  unsigned ready_head = 0, ready_tail = 0;

  Votes arrived, released;  // votes at the block barrier now; at the last one
  Where barrier;

  Fiber main;
  Fiber* running = &main;
  Fiber fibers[kMaxThreads];
  int fibers_made = 0;
  Fiber* idle[kMaxThreads];
  int idle_count = 0;

  char error[1024];  // "" while all is well
  // Addresses that stand for TSan's happens-before edges.
  char start_tag, done_tag, barrier_tag, warp_tags[kMaxThreads / kWarp];
};

Scheduler s;

#if defined(DEPTHSTILL_SIMT_TSAN)
void publish(char* tag) { __tsan_release(tag); }
void observe(char* tag) { __tsan_acquire(tag); }
#else
void publish(char*) {}
void observe(char*) {}
#endif

unsigned random_below(unsigned n) {  // xorshift32
  s.random ^= s.random << 13;
  s.random ^= s.random >> 17;
  s.random ^= s.random << 5;
  return s.random % n;
}

// ---- diagnosis ----------------------------------------------------------------------------------------------------

// Appends to the error; everything is formatted in place (see the top of the file).
[[gnu::format(printf, 1, 2)]] void report(const char* format, ...) {
  const size_t used = std::strlen(s.error);
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(s.error + used, sizeof s.error - used, format, arguments);
  va_end(arguments);
}

void report_block() {
  const auto& [x, y, z] = blockIdx;
  report("\n  in block (%u,%u,%u) of the launch at %s:%d", x, y, z, s.launch.file, s.launch.line);
}

void switch_to(Fiber* to, bool for_good = false) {
  Fiber* from = s.running;
  if (from == to) return;
  s.running = to;
  switch_fiber(from, to, for_good);
}

// Leaves the kernel with what was reported; run_block throws it on the host's stack.
[[noreturn]] void abandon() {
  report_block();
  publish(&s.done_tag);  // TSan sees libc write the report
  switch_to(&s.main, true);
  std::abort();
}

#define SIMT_FAIL(...) (report("simt: " __VA_ARGS__), abandon())

void require_kernel(Where where) {
  check(s.current >= 0, where.file, ":", where.line, ": simt: a device function was called outside a kernel");
}

void report_deadlock() {
  report("simt: deadlock, no thread can continue:");
  int shown = 0;
  for (int i = 0; i < s.size && shown < 4; ++i) {
    const Thread& t = s.threads[i];
    if (t.state != State::kAtBarrier && t.state != State::kAtWarp) continue;
    if (i > 0 && s.threads[i - 1].state == t.state && s.threads[i - 1].where.line == t.where.line) continue;
    report("\n  threads from (%u,%u,%u) on wait at %s:%d", t.index.x, t.index.y, t.index.z, t.where.file, t.where.line);
    ++shown;
  }
  report_block();
}

// ---- scheduling ---------------------------------------------------------------------------------------------------

bool any_ready() { return s.ready_head != s.ready_tail; }

void make_ready(int t) {
  s.threads[t].state = State::kReady;
  s.ready[s.ready_tail++ % kMaxThreads] = t;
}

int pop_ready() {
  if (s.schedule == Schedule::kForward) return s.ready[s.ready_head++ % kMaxThreads];
  if (s.schedule == Schedule::kShuffled) {
    const unsigned pick = s.ready_head + random_below(s.ready_tail - s.ready_head);
    std::swap(s.ready[pick % kMaxThreads], s.ready[(s.ready_tail - 1) % kMaxThreads]);
  }
  return s.ready[--s.ready_tail % kMaxThreads];
}

void set_current(int t) {
  s.current = t;
  threadIdx = s.threads[t].index;
}

void fiber_entry();

Fiber* idle_fiber() {
  if (s.idle_count == 0) s.idle[s.idle_count++] = &s.fibers[s.fibers_made++];
  Fiber* fiber = s.idle[--s.idle_count];
  prepare_fiber(fiber, fiber_entry, static_cast<size_t>(fiber - s.fibers));
  return fiber;
}

// Leaves the running fiber for the next runnable thread, or for the host when there is none.
void yield(bool for_good = false) {
  if (any_ready()) {
    switch_to(s.threads[pop_ready()].fiber, for_good);
  } else if (s.started < s.size) {
    switch_to(idle_fiber(), for_good);
  } else {
    switch_to(&s.main, for_good);
  }
}

void wait(State state, Where where) {
  const int self = s.current;
  s.threads[self].state = state;
  s.threads[self].where = where;
  publish(&s.done_tag);  // for the host, should this thread never run again
  yield();
  set_current(self);
}

void release_barrier() {
  s.released = std::exchange(s.arrived, Votes{});
  for (int t = 0; t < s.size; ++t) {
    if (s.threads[t].state == State::kAtBarrier) make_ready(t);
  }
}

void finish_thread() {
  const int self = s.current, first = self - self % kWarp;
  Warp& warp = s.warps[self / kWarp];
  s.threads[self].state = State::kDone;
  warp.exited |= 1u << self % kWarp;
  for (uint32_t w = warp.waiting; w != 0; w &= w - 1) {
    const Thread& t = s.threads[first + __builtin_ctz(w)];
    if ((t.mask >> self % kWarp & 1) == 0) continue;
    SIMT_FAIL("thread (%u,%u,%u) waits at %s:%d for lane %d, which has exited", t.index.x, t.index.y, t.index.z,
              t.where.file, t.where.line, self % kWarp);
  }
  publish(&s.done_tag);
  --s.live;
  // From Volta on, threads that returned no longer count: the barrier may now be complete.
  if (s.arrived.all > 0 && s.arrived.all == s.live) release_barrier();
}

void fiber_entry() {
  finish_switch(nullptr);
  do {
    const int t = s.start_order[s.started++];
    s.threads[t].fiber = s.running;
    set_current(t);
    observe(&s.start_tag);
    s.body(s.body_state);
    finish_thread();
  } while (kReuseFibers && !any_ready() && s.started < s.size);
  if (kReuseFibers) s.idle[s.idle_count++] = s.running;
  yield(true);  // an idle fiber is prepared anew
  std::abort();
}

// ---- one block, one grid ------------------------------------------------------------------------------------------

// All-ones is NaN in every float format and -1 in the integers. Under ASan memset would meet the section's redzones.
__attribute__((no_sanitize("address", "undefined"))) void fill_static_shared() {
  if (__start_simt_shared == nullptr) return;
  volatile char* p = __start_simt_shared;
  volatile char* const end = __stop_simt_shared;
  for (; p < end && reinterpret_cast<uintptr_t>(p) % sizeof(uint64_t) != 0; ++p) *p = -1;
  for (; p + sizeof(uint64_t) <= end; p += sizeof(uint64_t)) *reinterpret_cast<volatile uint64_t*>(p) = ~uint64_t{0};
  for (; p < end; ++p) *p = -1;
}

// Every fiber may be taken, and is prepared anew when it is.
void reset_idle() {
#if defined(DEPTHSTILL_SIMT_TSAN)
  // Creating a TSan fiber orders it after its creator, so the host creates all that the block needs.
  for (int f = 0; f < s.size; ++f) {
    if (s.fibers[f].tsan == nullptr) s.fibers[f].tsan = __tsan_create_fiber(0);
  }
  s.fibers_made = std::max(s.fibers_made, s.size);
#endif
  for (s.idle_count = 0; s.idle_count < s.fibers_made; ++s.idle_count) {
    s.idle[s.idle_count] = &s.fibers[s.fibers_made - 1 - s.idle_count];
  }
}

void throw_error() {
#if defined(DEPTHSTILL_SIMT_TSAN)
  for (int f = 0; f < s.fibers_made; ++f) {  // their call stacks were abandoned
    if (s.fibers[f].tsan != nullptr) __tsan_destroy_fiber(std::exchange(s.fibers[f].tsan, nullptr));
  }
#endif
  throw Error(s.error);
}

void prepare_block() {
  for (int t = 0; t < s.size; ++t) {
    const unsigned u = static_cast<unsigned>(t);
    s.threads[t].index = {u % blockDim.x, u / blockDim.x % blockDim.y, u / (blockDim.x * blockDim.y)};
    s.threads[t].state = State::kUnstarted;
    s.start_order[t] = s.schedule == Schedule::kReverse ? s.size - 1 - t : t;
  }
  if (s.schedule == Schedule::kShuffled) {
    for (int t = s.size - 1; t > 0; --t) {
      std::swap(s.start_order[t], s.start_order[random_below(static_cast<unsigned>(t) + 1)]);
    }
  }
  for (int w = 0; w * kWarp < s.size; ++w) {
    const int lanes = std::min(kWarp, s.size - w * kWarp);
    s.warps[w] = {0, 0, lanes == kWarp ? 0u : ~0u << lanes};
  }
  s.live = s.size;
  s.started = 0;
  s.ready_head = s.ready_tail = 0;
  s.arrived = {};
  s.error[0] = '\0';
  reset_idle();
}

void run_block(size_t dynamic_shared_bytes) {
  prepare_block();
  if (dynamic_shared_bytes > 0) std::memset(s.shared.get(), 0xff, dynamic_shared_bytes);
  fill_static_shared();
  publish(&s.start_tag);
  yield();  // returns when no thread can run
  s.current = -1;
  observe(&s.done_tag);
  if (s.error[0] == '\0' && s.live > 0) report_deadlock();
  if (s.error[0] != '\0') throw_error();
}

void check_launch(dim3 grid, dim3 block, size_t shared_bytes, Where at) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  const bool block_ok = threads > 0 && threads <= kMaxThreads && block.z <= 64;
  check(block_ok, at.file, ":", at.line, ": simt: invalid launch, block (", block.x, ",", block.y, ",", block.z,
        "): a block has 1 to 1024 threads, at most 64 of them in z");
  const bool grid_ok =
      grid.x > 0 && grid.x <= 0x7fffffff && grid.y > 0 && grid.y <= 65535 && grid.z > 0 && grid.z <= 65535;
  check(grid_ok, at.file, ":", at.line, ": simt: invalid launch, grid (", grid.x, ",", grid.y, ",", grid.z,
        "): the limits are (2147483647,65535,65535)");
  check(shared_bytes <= kMaxSharedBytes, at.file, ":", at.line, ": simt: invalid launch, ", shared_bytes,
        " bytes of dynamic shared memory: a block has at most ", kMaxSharedBytes);
}

// One launch at a time: the built-in variables and shared memory are global.
class Busy {
 public:
  explicit Busy(Where at) {
    check(!s.busy.exchange(true), at.file, ":", at.line,
          ": simt: two host threads launch kernels at once; launches must come from one thread at a time");
  }
  ~Busy() { s.busy.store(false); }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;
};

void find_skip() {
  static bool done = false;
  if (std::exchange(done, true)) return;
  const char* value = std::getenv("DEPTHSTILL_SIMT_SKIP");
  if (value == nullptr) return;
  const char* colon = std::strrchr(value, ':');
  check(colon != nullptr && std::atoi(colon + 1) > 0, "DEPTHSTILL_SIMT_SKIP: expected file:line, got '", value, "'");
  static char file[256];
  std::snprintf(file, sizeof file, "%.*s", static_cast<int>(colon - value), value);
  s.skip = {file, std::atoi(colon + 1)};
}

bool skipped(Where where) {
  if (where.line != s.skip.line) return false;
  const size_t length = std::strlen(where.file), wanted = std::strlen(s.skip.file);
  if (length < wanted || std::strcmp(where.file + length - wanted, s.skip.file) != 0) return false;
  if (!std::exchange(s.skip_announced, true)) std::fprintf(stderr, "simt: skips %s:%d\n", where.file, where.line);
  return true;
}

// The i-th block to run. Shuffled: i -> a * i + b modulo the number of blocks, with a prime.
uint64_t block_at(uint64_t i, uint64_t blocks, unsigned offset) {
  if (s.schedule == Schedule::kForward) return i;
  constexpr uint64_t kPrime = 1000003;
  if (s.schedule == Schedule::kReverse || blocks % kPrime == 0) return blocks - 1 - i;
  return (i * kPrime + offset) % blocks;
}

}  // namespace

// ---- interface ----------------------------------------------------------------------------------------------------

int lane() { return s.current % kWarp; }

void* dynamic_shared() { return s.shared.get(); }

Votes block_barrier(int predicate, Where where) {
  require_kernel(where);
  const int yes = predicate != 0 ? 1 : 0;
  if (skipped(where)) return {yes, 1};
  if (s.arrived.all == 0) s.barrier = where;  // the first to arrive names the barrier
  if (s.barrier.line != where.line || std::strcmp(s.barrier.file, where.file) != 0) {
    SIMT_FAIL("divergent barrier: some threads wait at %s:%d, but thread (%u,%u,%u) arrived at %s:%d", s.barrier.file,
              s.barrier.line, threadIdx.x, threadIdx.y, threadIdx.z, where.file, where.line);
  }
  publish(&s.barrier_tag);
  s.arrived.yes += yes;
  ++s.arrived.all;
  const int self = s.current;
  s.threads[self].state = State::kAtBarrier;
  if (s.arrived.all == s.live) release_barrier();  // including the caller
  wait(s.threads[self].state, where);
  observe(&s.barrier_tag);
  return s.released;
}

// All lanes of `mask` are there: gives each its result.
static void complete_exchange(WarpOp op, uint32_t mask, int first, Where where) {
  uint32_t ballot = 0;
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    const int l = __builtin_ctz(m);
    const Thread& t = s.threads[first + l];
    if (t.mask != mask || t.op != op) {
      SIMT_FAIL("mismatched warp collectives: %s:%d with mask %08x, %s:%d with mask %08x", where.file, where.line, mask,
                t.where.file, t.where.line, t.mask);
    }
    if ((mask >> t.source_lane & 1) == 0) {
      SIMT_FAIL("%s:%d: lane %d reads lane %d, which is not in mask %08x", where.file, where.line, l, t.source_lane,
                mask);
    }
    ballot |= static_cast<uint32_t>(t.value & 1) << l;
  }
  for (uint32_t m = mask; m != 0; m &= m - 1) {
    Thread& t = s.threads[first + __builtin_ctz(m)];
    t.result = op == WarpOp::kBallot ? ballot : s.threads[first + t.source_lane].value;
    if (t.state == State::kAtWarp) make_ready(first + __builtin_ctz(m));
  }
}

uint64_t warp_exchange(WarpOp op, uint32_t mask, uint64_t value, int source_lane, Where where) {
  require_kernel(where);
  if (op == WarpOp::kSync && skipped(where)) return value;
  const int self = s.current, self_lane = self % kWarp;
  Thread& me = s.threads[self];
  Warp& warp = s.warps[self / kWarp];
  if ((mask >> self_lane & 1) == 0) {
    SIMT_FAIL("%s:%d: lane %d calls with mask %08x, which it is not in", where.file, where.line, self_lane, mask);
  }
  if ((mask & (warp.exited | warp.absent)) != 0) {
    const int missing = __builtin_ctz(mask & (warp.exited | warp.absent));
    SIMT_FAIL("%s:%d: mask %08x names lane %d, which %s", where.file, where.line, mask, missing,
              (warp.exited >> missing & 1) != 0 ? "has exited" : "the block does not have");
  }
  me.op = op;
  me.mask = mask;
  me.value = value;
  me.source_lane = source_lane;
  me.where = where;
  warp.waiting |= 1u << self_lane;
  if (op == WarpOp::kSync) publish(&s.warp_tags[self / kWarp]);
  if ((warp.waiting & mask) != mask) {
    wait(State::kAtWarp, where);
  } else {
    complete_exchange(op, mask, self - self_lane, where);
    warp.waiting &= ~mask;
  }
  if (op == WarpOp::kSync) observe(&s.warp_tags[self / kWarp]);
  return me.result;
}

void run_grid(dim3 grid, dim3 block, size_t dynamic_shared_bytes, Where launch, void (*body)(const void*),
              const void* state) {
  const Busy busy(launch);
  check_launch(grid, block, dynamic_shared_bytes, launch);
  find_skip();
#if defined(DEPTHSTILL_SIMT_TSAN)
  s.main.tsan = __tsan_get_current_fiber();
#endif
  s.launch = launch;
  s.body = body;
  s.body_state = state;
  s.size = static_cast<int>(block.x * block.y * block.z);
  gridDim = grid;
  blockDim = block;
  s.shared = std::make_unique<char[]>(dynamic_shared_bytes);  // exactly as large as asked: ASan sees overruns
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  const unsigned offset = random_below(1 << 20);
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t b = block_at(i, blocks, offset);
    blockIdx = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                static_cast<unsigned>(b / grid.x / grid.y)};
    run_block(dynamic_shared_bytes);
  }
}

}  // namespace depthstill::simt

namespace depthstill::cuda {

void set_schedule(Schedule schedule, uint32_t seed) {
  simt::s.schedule = schedule;
  simt::s.random = seed * 2654435761u + 1;
  if (simt::s.random == 0) simt::s.random = 1;
}

}  // namespace depthstill::cuda
