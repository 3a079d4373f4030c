// What a launch carries: a table of jobs, each cut into tiles. Plain data, the same for the GPU, for the emulation on the CPU and
// for the host that makes it. A small table travels in the kernel's parameters, a large one in device memory.
#pragma once
#include "../job.h"

namespace wi {

constexpr int kThreads = 256;        // a block
constexpr int kResidentBlocks = 4;   // on a multiprocessor: 64 registers a thread, half of the threads there can be
constexpr int kGroupsPerThread = 2;  // groups of 16 bytes (or of a Philox block, if that is more) in a tile: 8 KiB
constexpr int kTileGroups = kThreads * kGroupsPerThread;
// Tiles that a block takes one after another, at most: what it does once (some 140 instructions a thread) then is 2 % of a share
// of float32 normals. With 8 tiles, as before, it was 7 %.
constexpr uint32_t kShareTiles = 32;
// Philox blocks of a run that a thread takes one after another, at most, once it knows where the first one lies: that costs a third
// of a block of float32 normals.
constexpr int kPieceBlocks = 4;
constexpr int kGridDims = 6;  // dimensions of a strided region as the kernels walk it; one with more becomes several jobs

// A program that only the GPU has: uniform with a scale of kGridScaleLimit or more, whose grid_scale() (scalar_device.h) overflows.
constexpr int kUniformWide = kKinds;
constexpr float kGridScaleLimit = 0x1p-21f;

enum class Layout : uint16_t {
    kAligned,  // consecutive in index and memory, groups on 16-byte boundaries
    kLinear,   // consecutive in index and memory
    kGroups,   // rows of whole groups on 16-byte boundaries
    kRows,     // runs of consecutive index, the elements of each `run_stride` apart
    kRuns,     // anything else: runs whose elements lie in dimensions of their own
};

// A dimension of a region: `size` numbers, each of which adds so much to the address and to the index.
// n / size is (high half of n * factor + n) >> CudaJob::shifts, for all n < 2^31 (Granlund, Montgomery 1994).
struct alignas(16) GridDim {
    uint32_t size, factor, bytes, step;
};

struct CudaJob {
    uint64_t data;   // address of the first element
    uint64_t index;  // global index of the first element
    uint64_t count;  // elements; of regions: pieces (kGroups: groups) of all runs, fewer than 2^31
    uint64_t seed, stream;
    union {
        float params32[kMaxParams];
        double params64[kMaxParams];
    };
    uint64_t integers[kMaxIntegers];
    uint32_t first_tile;
    uint8_t kind;  // or kUniformWide
    uint8_t storage;
    Layout layout;
    uint32_t run_stride;  // bytes from one element to the next; kRuns: 0
    // The rest is of regions, all of whose blocks lie in one span of 2^32, and all of whose elements in 2^31 bytes. Pieces, some
    // blocks of a run that one thread takes (kGroups: groups), are numbered by dims[0, outer), the first counts fastest; one of the
    // first two is the piece within its run.
    uint32_t run;  // elements of a run
    uint8_t ndim, outer, block_dim;
    uint8_t piece;  // elements of its blocks
    uint8_t shifts[kGridDims];
    GridDim dims[kGridDims];  // kRuns: dims[outer, ndim) are the elements of a run

    WI_HOST_DEVICE float f32(int i) const { return params32[i]; }
    WI_HOST_DEVICE double f64(int i) const { return params64[i]; }
    WI_HOST_DEVICE uint64_t integer(int i) const { return integers[i]; }
};

constexpr int kInlineJobs = 12;  // as many as fit into the 4 KB of parameters that every driver takes

struct CudaTable {
    const CudaJob* far;  // in device memory; null: the jobs are here
    uint32_t jobs, tiles;
    uint32_t share, longer;  // tiles that each block takes, in order; the first `longer` blocks take one more
    CudaJob here[kInlineJobs];
};

// How many blocks a launch has, if so many can be resident on the GPU at once: all of them busy until all are done, since shares
// differ by one tile at most.
inline uint32_t blocks_of(uint32_t tiles, uint32_t resident) {
    const uint64_t waves = (tiles + uint64_t(resident) * kShareTiles - 1) / (uint64_t(resident) * kShareTiles);
    return uint32_t(tiles < waves * resident ? tiles : waves * resident);
}

inline void share_among(CudaTable& table, uint32_t blocks) {
    table.share = table.tiles / blocks;
    table.longer = table.tiles % blocks;
}

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
