// Fibers for simt.cpp: stacks that are switched by hand, in ways that the sanitizers can follow.
//
// Only simt.cpp includes this, which is built without -fsanitize=thread: hand-offs between fibers must stay invisible
// to TSan, or they would order, and so hide, the races of a kernel. DEPTHSTILL_SIMT_TSAN says that the rest has it.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <new>

#if defined(__x86_64__)
#define SIMT_ASM_SWITCH 1
#else
#include <ucontext.h>  // portable, but every switch is a system call
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#endif
#if defined(SIMT_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(DEPTHSTILL_SIMT_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace depthstill::simt {

inline constexpr size_t kStackBytes = 64 << 10;  // kernels keep arrays in registers or shared memory, not on the stack
inline constexpr size_t kGuardBytes = 4096;

struct Fiber {
#if defined(SIMT_ASM_SWITCH)
  void* stack_pointer = nullptr;
#else
  ucontext_t context;
#endif
  char* stack = nullptr;  // null for the host thread's own
  const void* asan_bottom = nullptr;
  size_t asan_size = 0;
  void* tsan = nullptr;
};

#if defined(SIMT_ASM_SWITCH)
extern "C" void depthstill_simt_switch(void** save, void* load);
asm(R"(
.text
.globl depthstill_simt_switch
.type depthstill_simt_switch,@function
depthstill_simt_switch:     # System V: the callee-saved registers live on the suspended stack
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size depthstill_simt_switch,.-depthstill_simt_switch
)");
#endif

#if defined(SIMT_ASAN)
inline Fiber* asan_previous = nullptr;
#endif

// A stack that was switched to must call this first.
inline void finish_switch([[maybe_unused]] void* fake_stack) {
#if defined(SIMT_ASAN)
  __sanitizer_finish_switch_fiber(fake_stack, &asan_previous->asan_bottom, &asan_previous->asan_size);
#endif
}

// Runs `to` from where it stopped; returns when something switches back to `from`. With for_good, nothing will.
inline void switch_fiber(Fiber* from, Fiber* to, [[maybe_unused]] bool for_good) {
  void* fake_stack = nullptr;
#if defined(SIMT_ASAN)
  asan_previous = from;
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fake_stack, to->asan_bottom, to->asan_size);
#endif
#if defined(DEPTHSTILL_SIMT_TSAN)
  __tsan_switch_to_fiber(to->tsan, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(SIMT_ASM_SWITCH)
  depthstill_simt_switch(&from->stack_pointer, to->stack_pointer);
#else
  swapcontext(&from->context, &to->context);
#endif
  finish_switch(fake_stack);
}

// Makes `fiber` start `entry`, which must not return, when it is next switched to. `index` tells fibers apart.
inline void prepare_fiber(Fiber* fiber, void (*entry)(), [[maybe_unused]] size_t index) {
  if (fiber->stack == nullptr) {
    void* memory =
        mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory, kGuardBytes, PROT_NONE);
    fiber->stack = static_cast<char*>(memory);
    fiber->asan_bottom = fiber->stack;
    fiber->asan_size = kStackBytes;
  }
#if defined(SIMT_ASAN)
  __asan_unpoison_memory_region(fiber->stack + kGuardBytes, kStackBytes - kGuardBytes);
#endif
#if defined(SIMT_ASM_SWITCH)
  // Equally aligned stack tops would compete for the same cache sets.
  const size_t colour = index % 64 * 64;
  void** sp = reinterpret_cast<void**>(fiber->stack + kStackBytes - colour) - 1;  // rsp % 16 == 8, as after a call
  *--sp = reinterpret_cast<void*>(entry);                                         // popped by the switch's ret
  for (int i = 0; i < 6; ++i) *--sp = nullptr;                                    // callee-saved registers
  fiber->stack_pointer = sp;
#else
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = fiber->stack;
  fiber->context.uc_stack.ss_size = kStackBytes;
  makecontext(&fiber->context, entry, 0);
#endif
}

}  // namespace depthstill::simt
