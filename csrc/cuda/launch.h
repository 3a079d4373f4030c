// What a launch carries: a table of jobs, each cut into tiles. Plain data, the same for the GPU, for the emulation on the CPU and
// for the host that makes it. A small table travels in the kernel's parameters, a large one in device memory.
#pragma once
#include "../job.h"

namespace wi {

constexpr int kThreads = 256;         // a block
constexpr int kResidentBlocks = 4;    // on a multiprocessor: 64 registers a thread, half of the threads there can be
constexpr int kGroupsPerThread = 16;  // groups of 16 bytes (or of a Philox block, if that is more) in a tile
constexpr int kTileGroups = kThreads * kGroupsPerThread;
constexpr int kGridDims = 6;  // collapsed dimensions of a strided region; one with more becomes several jobs

// A program that only the GPU has: uniform with a scale of kGridScaleLimit or more, whose grid_scale() (scalar_device.h) overflows.
constexpr int kUniformWide = kKinds;
constexpr float kGridScaleLimit = 0x1p-21f;

enum class Layout : uint16_t {
    kLinear,  // consecutive in index and memory
    kRuns,    // anything else
};

struct CudaJob {
    uint64_t data;   // address of the first element
    uint64_t index;  // global index of the first element
    uint64_t count;  // kLinear: elements; kRuns: Philox blocks of all runs
    uint64_t seed, stream;
    union {
        float params32[kMaxParams];
        double params64[kMaxParams];
    };
    uint64_t integers[kMaxIntegers];
    uint32_t first_tile;
    uint16_t program;  // kind or kUniformWide, * kStorages + storage
    Layout layout;
    uint32_t aligned;     // kLinear: groups lie on 16-byte boundaries
    uint64_t run;         // kRuns: elements of a run
    uint64_t run_groups;  // kRuns: Philox blocks that a run can touch
    int32_t ndim, outer;  // kRuns: dims[0, outer) repeat the run, dims[outer, ndim) are the run
    Dim dims[kGridDims];

    WI_HOST_DEVICE float f32(int i) const { return params32[i]; }
    WI_HOST_DEVICE double f64(int i) const { return params64[i]; }
    WI_HOST_DEVICE uint64_t integer(int i) const { return integers[i]; }
};

constexpr int kInlineJobs = 12;  // as many as fit into the 4 KB of parameters that every driver takes

struct CudaTable {
    const CudaJob* far;  // in device memory; null: the jobs are here
    uint32_t jobs, tiles;
    CudaJob here[kInlineJobs];
};

// The same for the kernel that combines.
struct CombineTable {
    CudaTable table;
    Combine how;
};
static_assert(sizeof(CombineTable) <= 4096, "kernel parameters are limited to 4 KB");

// Elements of a group: what one thread makes before it stores, at least a Philox block and 16 bytes.
WI_HOST_DEVICE constexpr int group_elements(Storage storage) {
    return storage == Storage::kFloat64 || storage == Storage::kUInt64 ? 2 : 16 / item_size(storage);
}

}  // namespace wi
