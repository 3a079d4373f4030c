// Threads: the OpenMP runtime that torch has already loaded, found at run time. No pool of our own, no link dependency.
#pragma once
#include <cstdint>

namespace wi {

using TileFn = void (*)(void* context, int64_t tile);

// Calls fn for every tile in [begin, end) on up to `threads` threads; the caller is one of them. Serial when no runtime was
// found, inside a parallel region, and in a child of fork() (no OpenMP runtime's threads survive it).
void parallel_tiles(int64_t begin, int64_t end, int threads, TileFn fn, void* context);

// The runtime in use, or why there is none.
const char* parallel_runtime();

}  // namespace wi
