// What watches a kernel that g++ has compiled with -fsanitize=thread, whose library is not linked: its hooks are here and tell the
// harness (emulated_gpu.cpp) of every store that is not to the stack. Include it first.
#pragma once
#include "cuda_shim.h"

#define NOT_WATCHED __attribute__((no_sanitize("thread")))

extern "C" {

void gpu_write(uint64_t address, uint32_t bytes);

static uintptr_t stack_top;

NOT_WATCHED static void stored(const void* to, uintptr_t bytes) {
    char here;
    const uintptr_t address = reinterpret_cast<uintptr_t>(to), bottom = reinterpret_cast<uintptr_t>(&here);
    if (address < bottom || address >= stack_top) gpu_write(address, uint32_t(bytes));
}

// One thread is about to run, called by a function whose frame is `top`.
NOT_WATCHED static void start_thread(uint32_t tid, uint32_t ctaid, uint32_t nctaid, void* top) {
    threadIdx.x = tid;
    blockIdx.x = ctaid;
    gridDim.x = nctaid;
    stack_top = reinterpret_cast<uintptr_t>(top);
}

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
#define HOOKS(bytes)                                          \
    void __tsan_read##bytes(void*) {}                         \
    void __tsan_unaligned_read##bytes(void*) {}               \
    void __tsan_write##bytes(void* to) { stored(to, bytes); } \
    void __tsan_unaligned_write##bytes(void* to) { stored(to, bytes); }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
void __tsan_read_range(void*, uintptr_t) {}
void __tsan_write_range(void* to, uintptr_t bytes) { stored(to, bytes); }

}  // extern "C"
