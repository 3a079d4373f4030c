// Which Philox blocks a thread takes of a tile, and where their elements lie: the same walk for the careful path of a fill and for
// the kernel that combines, over consecutive memory and over the runs of any region, as table.cpp has cut them.
#pragma once
#include "../core/address.h"
#include "../core/philox.h"
#include "elements.h"

namespace wi {
namespace WI_ISA {

// A stretch of consecutive global index, [first, end), and the address of its first element.
struct Stretch {
    uint64_t first, end, address;
};

// Of the element that follows the stretch's first after n others.
WI_KERNEL_FN uint64_t address_of(const CudaJob& job, const Stretch& stretch, uint64_t n, int size) {
    if (job.layout == Layout::kLinear) return stretch.address + n * uint64_t(size);
    return stretch.address + uint64_t(place_of(job, job.outer, job.ndim, n).memory) * uint64_t(size);
}

// Of job, but nothing that was read before is held in registers for it: where speed matters less than room.
WI_KERNEL_FN const CudaJob& read_again(const CudaJob& job) {
    const CudaJob* address = &job;
#if defined(__CUDA_ARCH__)
    asm volatile("" : "+l"(address));
#endif
    return *address;
}

// Calls use(job, stretch, block) for those blocks of the tile that this thread takes.
template <class Use>
WI_KERNEL_FN void each_block(const CudaJob& tiles_job, uint32_t tile, const Use& use) {
    const Storage storage = Storage(tiles_job.program % kStorages);
    const int size = item_size(storage);
    const uint32_t per_block = size == 8 ? 2 : 4, group = uint32_t(group_elements(storage));
    const bool linear = tiles_job.layout == Layout::kLinear;
    const uint32_t in_tile = kTileGroups * (linear ? group / per_block : 1);  // blocks
    // Numbers of blocks, or of those of all runs one after another.
    const uint64_t begin = (linear ? tiles_job.index / group * (group / per_block) : 0) + uint64_t(tile) * in_tile;
    const uint64_t end = linear ? (tiles_job.index + tiles_job.count - 1) / per_block + 1 : tiles_job.count;
    const uint32_t count = uint32_t(end - begin < in_tile ? end - begin : in_tile);
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < count; i += kThreads) {
        const CudaJob& job = read_again(tiles_job);
        Stretch stretch = {job.index, job.index + job.count, job.data};
        uint64_t block = begin + i;
        if (job.layout != Layout::kLinear) {
            const Place run = place_of(job, 0, job.outer, block / job.run_groups);
            const uint64_t first = job.index + uint64_t(run.index);
            stretch = {first, first + job.run, job.data + uint64_t(run.memory) * uint64_t(size)};
            block = first / per_block + block % job.run_groups;
        }
        use(job, stretch, block);
    }
}

// The random words of a block.
WI_KERNEL_FN void words_of_block(const CudaJob& job, uint64_t block, uint32_t w[4]) {
    const PhiloxSpan<uint32_t> span(job.seed, job.stream, uint32_t(block >> 32));
    philox4x32_10(uint32_t(block), span, w);
}

// The last job that begins at or before the tile.
WI_KERNEL_FN const CudaJob& job_of(const CudaTable& table, uint32_t tile) {
    const CudaJob* jobs = table.far ? table.far : table.here;
    uint32_t low = 0, high = table.jobs;
    while (high - low > 1) {
        const uint32_t middle = (low + high) / 2;
        if (jobs[middle].first_tile <= tile)
            low = middle;
        else
            high = middle;
    }
    return jobs[low];
}

}  // namespace WI_ISA
}  // namespace wi
