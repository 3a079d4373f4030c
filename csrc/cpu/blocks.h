// Regions whose consecutive indices lie across memory (transposed, channels_last), cut into blocks: made row by row, as the kernels
// make values, and stored column by column, as they lie in memory.
#pragma once
#include <cstdint>

#include "../core/address.h"

namespace wi {

// How a region is cut. An item is what is moved: an element, or two that are neighbours everywhere (complex numbers).
struct Blocks {
    uint64_t count;          // 0: the region is not of this kind
    uint64_t rows, columns;  // of a block, in items
    uint64_t down, across;   // blocks, along both dimensions
    uint64_t gap;            // bytes between the rows of a block; none if their values are consecutive in the index
    uint64_t above;          // rows that the first block of a column of blocks lacks
    bool past_caches;        // whether columns may be stored so
    int per_item;            // elements
    Dim along, last;         // rows follow one another along the one, columns along the other
    Region rest;             // the other dimensions
};

Blocks blocks_of(const FillJob& job, const Region& region);

// Fills blocks [first, last).
void fill_blocks(const FillJob& job, const Draw& draw, const Blocks& blocks, RunFn run, StoreColumnsFn store, uint64_t first,
                 uint64_t last);

}  // namespace wi
