// Threads of our own: workers that sleep until a fill is long enough to wake them. The caller works, too, and waits at its end
// only for what workers have begun, never for a worker to come: one that comes late finds nothing to do.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

namespace wi {

constexpr std::chrono::nanoseconds kWhateverItCosts = std::chrono::nanoseconds::max();  // to be expected by tests

using RangeFn = void (*)(void* context, int64_t begin, int64_t end) noexcept;

// Calls fn for ranges that make up [begin, end), on the calling thread and on up to `threads` - 1 workers, and returns when all
// have ended. How many are worth it follows from the CPUs there are, from the time that one thread is expected to take for all,
// and from what workers have cost and spared of late. May be called by several threads at once, by fn itself and in a child of
// fork(). Every thread has the kernels' floating-point environment meanwhile.
void parallel_tiles(int64_t begin, int64_t end, int threads, std::chrono::nanoseconds expected, RangeFn fn,
                    void* context) noexcept;

// What runs the threads, in words.
std::string parallel_runtime();

}  // namespace wi
