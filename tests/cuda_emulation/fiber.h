// Fibers: stacks that are switched in user space, with the sanitizers told about every switch.
//
// Everything here runs in code that is itself compiled WITHOUT -fsanitize (FD_EMULATION_ASAN or
// FD_EMULATION_TSAN turns the hooks on): instrumented, the scheduler's own state would be reported as racing.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

// The switch is ours where we have written it, and the C library's (four times slower) elsewhere or on
// request.
#if defined(__x86_64__) && !defined(FD_EMULATION_UCONTEXT)
#define FD_OWN_SWITCH 1
#else
#define FD_OWN_SWITCH 0
#include <ucontext.h>
#endif
#if defined(FD_EMULATION_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(FD_EMULATION_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" {
void __tsan_acquire(void*);
void __tsan_release(void*);
}
#endif

#if FD_OWN_SWITCH
// Saves what a called function must preserve on the old stack, its top in *save, and goes on at `target`.
extern "C" void fd_switch_stack(void** save, void* target);
asm(R"(
    .text
    .globl fd_switch_stack
    .hidden fd_switch_stack
    .type fd_switch_stack, @function
fd_switch_stack:
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
    .size fd_switch_stack, .-fd_switch_stack
)");
#endif

namespace fd::emulation {

// A place to go on from: the stack of the program that launches, or a fiber's.
struct Context {
#if FD_OWN_SWITCH
    void* stack_top = nullptr;
#else
    ucontext_t machine;
#endif
    void* stack_bottom = nullptr;
    size_t stack_size = 0;
    void* tsan = nullptr;
    void* asan = nullptr;
};

inline Context* running = nullptr;
inline Context* came_from = nullptr;

// First thing on a stack that has just been switched to.
inline void arrived() {
#if defined(FD_EMULATION_ASAN)
    const void* bottom = nullptr;
    size_t size = 0;
    __sanitizer_finish_switch_fiber(running->asan, &bottom, &size);
    if (came_from->stack_bottom ==
        nullptr) {  // the program's own stack, of which only the sanitizer knows the extent
        came_from->stack_bottom = const_cast<void*>(bottom);
        came_from->stack_size = size;
    }
#endif
}

// `for_ever`: nobody will switch back.
inline void switch_to(Context& to, bool for_ever = false) {
    Context& from = *running;
    came_from = &from;
    running = &to;
#if defined(FD_EMULATION_ASAN)
    __sanitizer_start_switch_fiber(for_ever ? nullptr : &from.asan, to.stack_bottom, to.stack_size);
#endif
#if defined(FD_EMULATION_TSAN)
    __tsan_switch_to_fiber(to.tsan, 1);  // 1: a switch orders nothing, only barriers do
#endif
    (void)for_ever;
#if FD_OWN_SWITCH
    fd_switch_stack(&from.stack_top, to.stack_top);
#else
    swapcontext(&from.machine, &to.machine);
#endif
    arrived();
}

// Orders all that `fiber` has done before what this context does next, although they never met.
inline void join_order([[maybe_unused]] Context& fiber) {
#if defined(FD_EMULATION_TSAN)
    const std::unique_ptr<char> token = std::make_unique<char>();
    __tsan_switch_to_fiber(fiber.tsan, 1);
    __tsan_release(token.get());
    __tsan_switch_to_fiber(running->tsan, 1);
    __tsan_acquire(token.get());
#endif
}

// A fiber that can be started again and again; `entry` must leave by switch_to and never return.
class FiberStack : public Context {
  public:
    FiberStack() {
        const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
        mapping_size_ = kSize + page;
        const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        mapping_ = mmap(nullptr, mapping_size_, PROT_READ | PROT_WRITE, flags, -1, 0);
        if (mapping_ == MAP_FAILED) throw std::bad_alloc();
        mprotect(mapping_, page, PROT_NONE);  // an overflow stops instead of reaching a neighbour
        stack_bottom = static_cast<char*>(mapping_) + page;
        stack_size = kSize;
#if defined(FD_EMULATION_TSAN)
        tsan = __tsan_create_fiber(0);
#endif
    }
    FiberStack(const FiberStack&) = delete;
    FiberStack& operator=(const FiberStack&) = delete;
    ~FiberStack() {
#if defined(FD_EMULATION_ASAN)
        __asan_unpoison_memory_region(stack_bottom, stack_size);  // frames that were left in the middle
#endif
#if defined(FD_EMULATION_TSAN)
        __tsan_destroy_fiber(tsan);
#endif
        munmap(mapping_, mapping_size_);
    }

    void start_at(void (*entry)()) {
        asan = nullptr;
#if FD_OWN_SWITCH
        // What fd_switch_stack pops: six registers and the address to go to, above it the return address of
        // `entry`, where an unwinder stops; the stack is then aligned as after a call.
        uint64_t* top = reinterpret_cast<uint64_t*>(static_cast<char*>(stack_bottom) + stack_size);
        *--top = 0;
        *--top = reinterpret_cast<uint64_t>(entry);
        for (int i = 0; i < 6; ++i) *--top = 0;
        stack_top = top;
#else
        getcontext(&machine);
        machine.uc_stack.ss_sp = stack_bottom;
        machine.uc_stack.ss_size = stack_size;
        machine.uc_link = nullptr;
        makecontext(&machine, entry, 0);
#endif
    }

  private:
    static constexpr size_t kSize = 256 * 1024;

    void* mapping_ = nullptr;
    size_t mapping_size_ = 0;
};

// A point in the happens-before order: who acquires comes after all who released. Always a fresh heap block,
// because reusing an address would also order those who met there before.
class OrderToken {
  public:
    OrderToken() = default;
    OrderToken(const OrderToken&) = delete;
    OrderToken& operator=(const OrderToken&) = delete;
#if defined(FD_EMULATION_TSAN)
    void release() { __tsan_release(address_.get()); }
    void acquire() { __tsan_acquire(address_.get()); }

  private:
    std::unique_ptr<char> address_ = std::make_unique<char>();
#else
    void release() {}
    void acquire() {}
#endif
};

}  // namespace fd::emulation
