#include "blocks.h"

#include <algorithm>
#include <cstdlib>

namespace wi {
namespace {

constexpr uint64_t kLineBytes = 64;
// Of a block, at most: 256 x 64 float32 with gaps, so that it stays in L2 and a visit to the page of a column writes four lines. Filling
// 4096 x 4096 transposed took 0.53 ns a value (consecutive 0.33), with 512 columns 0.51, with 1024 0.52, with half as many rows 0.55. Of
// that, making rows of 256 values takes 0.35 and transposing what is in L1 0.09; fetching rows from L2 ahead of that was no faster.
constexpr uint64_t kBlockBytes = 68 << 10, kBlockColumns = 256;
// Where a block has no gaps: of many rows at a power of two, L1 holds only a few. 256 x 256 transposed took 0.54 ns a value with blocks
// of 68 KiB, 0.44 with 34; 131072 x 64 took 0.71 and 0.47, with 26 KiB 0.45, but 32768 x 256 then 0.61 instead of 0.53.
constexpr uint64_t kGaplessBytes = 34 << 10;
// Columns of blocks as short as this, of a tensor as large as this, are stored past the caches: they would not meet there again.
constexpr uint64_t kShortBytes = 512, kLargeBytes = 1 << 20;

struct Block {
    Columns where;   // and where it is made
    uint64_t index;  // of its first element
};

Block block_of(const FillJob& job, const Blocks& b, uint64_t number, char* values) {
    const uint64_t size = uint64_t(item_size(job.storage)), item = size * uint64_t(b.per_item);
    const uint64_t down = number % b.down, across = number / b.down % b.across;
    const uint64_t row = down * b.rows - (down ? b.above : 0), column = across * b.columns;
    const uint64_t rows = std::min((down + 1) * b.rows - b.above, uint64_t(b.along.size)) - row;
    const uint64_t columns = std::min(b.columns, uint64_t(b.last.size) - column);
    const Place place = place_of(b.rest, 0, b.rest.ndim, number / b.down / b.across);
    const int64_t first = place.memory + int64_t(row) * b.along.stride + int64_t(column) * b.last.stride;
    Columns c = {values,  columns * item + b.gap,         job.data + first * int64_t(size), rows,
                 columns, b.along.stride * int64_t(size), b.last.stride * int64_t(size),    false};
    c.past_caches = b.past_caches && (reinterpret_cast<uintptr_t>(c.memory) | uint64_t(c.column_stride)) % kLineBytes == 0;
    return {c, job.index + uint64_t(place.index) + row * uint64_t(b.along.step) + column * uint64_t(b.last.step)};
}

}  // namespace

Blocks blocks_of(const FillJob& job, const Region& r) {
    Blocks b = {};
    const uint64_t size = uint64_t(item_size(job.storage));
    int ndim = r.ndim;
    b.per_item = 1;
    if (ndim > 1 && r.dims[ndim - 1].size == 2 && r.dims[ndim - 1].stride == 1 && r.dims[ndim - 1].step == 1)
        b.per_item = 2, --ndim;
    if (r.count == 0 || ndim < 2 || r.dims[ndim - 1].step != b.per_item) return b;
    b.last = r.dims[ndim - 1];
    int along = 0;
    for (int i = 1; i < ndim - 1; ++i)
        if (std::abs(r.dims[i].stride) < std::abs(r.dims[along].stride)) along = i;
    b.along = r.dims[along];
    const uint64_t across_bytes = uint64_t(std::abs(b.last.stride)) * size;
    if (std::abs(b.along.stride) >= std::abs(b.last.stride) || across_bytes < kLineBytes) return b;
    for (int i = 0; i < ndim - 1; ++i)
        if (i != along) b.rest.dims[b.rest.ndim++] = r.dims[i];

    const uint64_t length = uint64_t(b.along.size), width = uint64_t(b.last.size), item = size * uint64_t(b.per_item);
    const uint64_t line = std::max(kLineBytes / item, uint64_t(1));
    b.columns = std::min(width, kBlockColumns);
    // Rows that are made one by one are a line more apart: of many lines at a power of two, L1 holds only a few.
    b.gap = b.along.step == int64_t(width) * b.per_item && b.columns == width ? 0 : kLineBytes;
    b.rows = (b.gap ? kBlockBytes : kGaplessBytes) / (b.columns * item + b.gap) / line * line;
    if (b.along.stride == b.per_item && across_bytes % kLineBytes == 0)
        b.above = reinterpret_cast<uintptr_t>(job.data) % kLineBytes / item;
    b.down = (length + b.above + b.rows - 1) / b.rows;
    b.across = (width + b.columns - 1) / b.columns;
    b.past_caches = b.rows * item <= kShortBytes && r.count * size >= kLargeBytes;
    b.count = b.down * b.across * (r.count / uint64_t(b.per_item) / length / width);
    return b;
}

// Storing the block before while one is made, with or without fetching its lines first, was no faster.
void fill_blocks(const FillJob& job, const Draw& draw, const Blocks& b, RunFn run, StoreColumnsFn store, uint64_t first,
                 uint64_t last) {
    alignas(64) char values[kBlockBytes];
    for (uint64_t number = first; number < last; ++number) {
        const Block block = block_of(job, b, number, values);
        const uint64_t rows = block.where.rows, elements = block.where.columns * uint64_t(b.per_item);
        const uint64_t at_once = b.gap == 0 ? rows : 1;
        for (uint64_t row = 0; row < rows; row += at_once)
            run(values + row * block.where.pitch, block.index + row * uint64_t(b.along.step), at_once * elements, job.transform,
                draw);
        store(block.where);
    }
#if defined(__x86_64__)
    __builtin_ia32_sfence();  // after stores past the caches
#endif
}

}  // namespace wi
