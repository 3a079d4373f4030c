#include "blocks.h"

#include <algorithm>
#include <cstdlib>

namespace wi {
namespace {

constexpr uint64_t kLineBytes = 64;
// Of a block, at most: 256 x 64 float32 with gaps, so that two blocks stay in L2 and a visit to the page of a column writes four lines.
// Filling 4096 x 4096 transposed took as long with twice the bytes, whether in longer rows or in more; with 64 x 512 and no gaps,
// an eighth longer.
constexpr uint64_t kBlockBytes = 68 << 10, kBlockColumns = 256;
constexpr uint64_t kRunElements = 512;  // what a kernel is called for at least, where it can be
constexpr uint64_t kShareColumns = 32;  // stored at a time: a multiple of what is transposed together
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

// A part of a block that has been made: from where it was stored up to `columns`.
struct Storing {
    StoreColumnsFn store;
    Columns left;
    uint64_t item;

    uint64_t lines() const { return left.rows * item / kLineBytes + 1; }

    void fetch(uint64_t columns) const {
        columns = std::min(columns, left.columns);
        for (uint64_t column = 0; column < columns; ++column) {
            const char* const memory = left.memory + int64_t(column) * left.column_stride;
            for (uint64_t line = 0; line < lines(); ++line) __builtin_prefetch(memory + line * kLineBytes, 1);
        }
    }

    void next(uint64_t columns) {
        Columns now = left;
        now.columns = std::min(columns, left.columns);
        if (now.columns == 0) return;
        store(now);
        left.columns -= now.columns;
        left.values += now.columns * item;
        left.memory += int64_t(now.columns) * left.column_stride;
    }
};

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
    b.rows = kBlockBytes / (b.columns * item + b.gap) / line * line;
    if (b.along.stride == b.per_item && across_bytes % kLineBytes == 0)
        b.above = reinterpret_cast<uintptr_t>(job.data) % kLineBytes / item;
    b.down = (length + b.above + b.rows - 1) / b.rows;
    b.across = (width + b.columns - 1) / b.columns;
    b.large = r.count * size >= kLargeBytes;
    b.past_caches = b.large && b.rows * item <= kShortBytes;
    b.count = b.down * b.across * (r.count / uint64_t(b.per_item) / length / width);
    return b;
}

// While a block is made, the one before it is stored, a few columns at a time: memory takes them while the kernel computes.
void fill_blocks(const FillJob& job, const Draw& draw, const Blocks& b, RunFn run, StoreColumnsFn store, uint64_t first,
                 uint64_t last) {
    const uint64_t item = uint64_t(item_size(job.storage)) * uint64_t(b.per_item);
    alignas(64) char values[2][kBlockBytes];
    Storing before = {store, {}, item};
    for (uint64_t number = first; number < last; ++number) {
        char* const to = values[number % 2];
        const Block block = block_of(job, b, number, to);
        const uint64_t rows = block.where.rows, columns = block.where.columns, elements = columns * uint64_t(b.per_item);
        const uint64_t at_once = b.gap == 0 ? std::max(kRunElements / elements, uint64_t(1)) : 1;
        const uint64_t share = (before.left.columns * at_once / rows + kShareColumns) / kShareColumns * kShareColumns;
        const bool fetch = b.large && !before.left.past_caches && before.left.row_stride == int64_t(item);
        for (uint64_t row = 0; row < rows; row += at_once) {
            if (fetch) before.fetch(share);
            const uint64_t n = std::min(at_once, rows - row) * elements;
            run(to + row * block.where.pitch, block.index + row * uint64_t(b.along.step), n, job.transform, draw);
            before.next(share);
        }
        before.next(before.left.columns);
        before.left = block.where;
    }
    before.next(before.left.columns);
#if defined(__x86_64__)
    __builtin_ia32_sfence();  // after stores past the caches
#endif
}

}  // namespace wi
