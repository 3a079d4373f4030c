// Which Philox blocks a thread takes of some tiles, and where their elements lie: the same walk for the careful path of a fill and
// for the kernel that combines, over consecutive memory and over the runs of any region, as table.cpp has laid them out. All
// numbers within a region are below 2^31, and divisions are multiplications.
#pragma once
#include "../core/philox.h"
#include "elements.h"

namespace wi {
namespace WI_ISA {

constexpr uint32_t kMostTiles = 1u << 17;  // at once: all counts are then below 2^31

// Of stretches of consecutive index: the runs of a region, or what is left of a consecutive job.
struct Stretch {
    uint32_t elements;
    uint32_t whole;  // a block is all in it, its elements one stride apart, if its number is below this
};

// A Philox block of a stretch.
struct Piece {
    uint64_t block;
    uint64_t address;  // of the block's first element, which may precede the stretch; kRuns: of the stretch's first element
    int32_t n;         // the number in the stretch of the block's first element
};

// Of dims[d], the number n: what is left for the dimensions after it, and the number along it.
struct Divided {
    uint32_t rest, at;
};
WI_KERNEL_FN Divided divided(const CudaJob& job, const GridDim& dim, int d, uint32_t n) {
    const uint32_t rest = (mul_hi_lo(n, dim.factor).hi + n) >> job.shifts[d];
    return {rest, n - rest * dim.size};
}

// The first element of a region's block: bytes and elements from the region's first one; and the number of the block in its run.
struct Place {
    uint32_t bytes, index, block;
};
WI_KERNEL_FN Place place_of(const CudaJob& job, uint32_t n) {
    const GridDim first = job.dims[0], second = job.dims[1];
    const Divided fast = divided(job, first, 0, n);
    uint32_t at = fast.rest, bytes = 0, index = 0;
    if (job.outer > 2) {
        Divided slow = divided(job, second, 1, fast.rest);
        at = slow.at;
#pragma unroll 1
        for (int d = 2; d < job.outer; ++d) {
            const GridDim dim = job.dims[d];
            slow = divided(job, dim, d, slow.rest);
            bytes += slow.at * dim.bytes;
            index += slow.at * dim.step;
        }
    }
    bytes += fast.at * first.bytes + at * second.bytes;
    index += fast.at * first.step + at * second.step;
    return {bytes, index, job.block_dim == 0 ? fast.at : at};
}

// Of job, but nothing that was read before is held in registers for it: where speed matters less than room.
WI_KERNEL_FN const CudaJob& read_again(const CudaJob& job) {
    const CudaJob* address = &job;
#if defined(__CUDA_ARCH__)
    asm volatile("" : "+l"(address));
#endif
    return *address;
}

// The first block of number i of a region's pieces.
template <int kSize>
WI_KERNEL_FN Piece piece_of(const CudaJob& job, uint32_t i) {
    constexpr uint32_t kPerBlock = kSize == 8 ? 2 : 4;
    const Place place = place_of(job, i);
    const uint64_t index = job.index + place.index;
    const uint32_t before = uint32_t(index) % kPerBlock;  // elements of the run's first block that precede it
    const int32_t bytes =
        int32_t(place.bytes - before * job.run_stride);  // negative where the block begins before the first run
    return {index / kPerBlock, job.data + uint64_t(int64_t(bytes)), int32_t(place.block * job.piece - before)};
}

// Element n of a kRuns run: bytes from its first, and elements up to the end of the innermost dimension.
struct InRun {
    uint32_t bytes, left;
};
WI_KERNEL_FN InRun in_run(const CudaJob& job, uint32_t n) {
    const GridDim innermost = job.dims[job.outer];
    const Divided first = divided(job, innermost, job.outer, n);
    InRun place = {first.at * innermost.bytes, innermost.size - first.at};
    uint32_t rest = first.rest;
#pragma unroll 1
    for (int d = job.outer + 1; d < job.ndim; ++d) {
        const GridDim dim = job.dims[d];
        const Divided next = divided(job, dim, d, rest);
        place.bytes += next.at * dim.bytes;
        rest = next.rest;
    }
    return place;
}

// Whether a block's elements are all in the stretch, one stride apart.
WI_KERNEL_FN bool is_whole(const Stretch& stretch, const Piece& piece) { return uint32_t(piece.n) < stretch.whole; }

// Whether the elements of a whole block can be stored at once.
template <int kSize, int kBytes>
WI_KERNEL_FN bool is_vector(const CudaJob& job, const Piece& piece) {
    return job.run_stride == kSize && piece.address % kBytes == 0;
}

// Calls use(i, address) for the elements i of a whole block.
template <int kSize, class Use>
WI_KERNEL_FN void all_elements(const CudaJob& job, const Piece& piece, const Use& use) {
    constexpr int kPerBlock = kSize == 8 ? 2 : 4;
    const uint32_t stride = job.run_stride;
    WI_UNROLL for (int i = 0; i < kPerBlock; ++i) use(i, piece.address + uint64_t(uint32_t(i)) * stride);
}

// Calls use(i, address) for those elements i of a block that lie in the stretch.
template <int kSize, class Use>
WI_KERNEL_FN void some_elements(const CudaJob& job, const Stretch& stretch, const Piece& piece, const Use& use) {
    constexpr int kPerBlock = kSize == 8 ? 2 : 4;
    if (job.layout != Layout::kRuns) {
        const uint32_t stride = job.run_stride;
        uint64_t address = piece.address;
        WI_UNROLL for (int i = 0; i < kPerBlock; ++i, address += stride)
            if (uint32_t(piece.n + i) < stretch.elements) use(i, address);
        return;
    }
    const uint32_t stride = job.dims[job.outer].bytes;
    InRun place = {0, 0};
    WI_UNROLL for (int i = 0; i < kPerBlock; ++i) {
        if (uint32_t(piece.n + i) >= stretch.elements) continue;
        if (place.left == 0) place = in_run(job, uint32_t(piece.n + i));
        use(i, piece.address + place.bytes);
        place.bytes += stride;
        --place.left;
    }
}

// The random words of blocks whose numbers have the same high half. There are not registers enough for all round keys: one half of
// them is made each time, and for float64 all that there is.
template <int kSize>
struct RandomWords {
    static constexpr int kMade = kSize == 1 ? 9 : 8;  // round keys [3, kMade) of one half
    PhiloxSpan<uint32_t> span;

    WI_KERNEL_FN RandomWords(const CudaJob& job, uint32_t high) : span(job.seed, job.stream, high) {
#if defined(__CUDA_ARCH__)
        WI_UNROLL for (int r = 3; r < 10; ++r) asm("" : "+r"(span.key0[r]));
        WI_UNROLL for (int r = kMade; r < 10; ++r) asm("" : "+r"(span.key1[r]));
#endif
    }

    WI_KERNEL_FN void of_block(const CudaJob& job, uint64_t block, uint32_t w[4]) {
        WI_UNROLL for (int r = 3; r < kMade; ++r) span.key1[r] = uint32_t(job.seed >> 32) + uint32_t(r) * kPhiloxW1;
        philox4x32_10(uint32_t(block), span, w);
    }
};

template <>
struct RandomWords<8> {
    WI_KERNEL_FN RandomWords(const CudaJob&, uint32_t) {}

    WI_KERNEL_FN void of_block(const CudaJob& job, uint64_t block, uint32_t w[4]) {
        philox4x32_10(uint32_t(block), PhiloxSpan<uint32_t>(job.seed, job.stream, uint32_t(block >> 32)), w);
    }
};

struct alignas(16) Vector16 {
    uint32_t word[4];
};

WI_KERNEL_FN void store(Vector16* out, const Vector16& v) {
#if defined(__CUDA_ARCH__)  // to global memory, which nvcc cannot know of an address that comes in a table
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(out), "r"(v.word[0]), "r"(v.word[1]), "r"(v.word[2]),
                 "r"(v.word[3])
                 : "memory");
#else
    *out = v;
#endif
}

// base + offset. The plain sum becomes a pointer that is carried along, and copied before each store that is still reading it.
WI_KERNEL_FN Vector16* at_offset(uint64_t base, uint32_t offset) {
#if defined(__CUDA_ARCH__)
    uint64_t address;
    asm("mad.wide.u32 %0, %1, 1, %2;" : "=l"(address) : "r"(offset), "l"(base));
    return reinterpret_cast<Vector16*>(address);
#else
    return reinterpret_cast<Vector16*>(base + offset);
#endif
}

// The round keys are sums with constants; without this nvcc makes them again in every iteration.
WI_KERNEL_FN void keep(PhiloxSpan<uint32_t>& span) {
#if defined(__CUDA_ARCH__)
    WI_UNROLL for (int r = 0; r < 10; ++r) asm("" : "+r"(span.key0[r]), "+r"(span.key1[r]));
#else
    (void)span;
#endif
}

// Of consecutive memory: tiles that are whole, aligned and in one span of 2^32 blocks, from a tile on.
struct WholeTiles {
    uint64_t address, block;  // of the first one
    uint32_t tiles;
    WI_KERNEL_FN uint32_t bytes() const { return tiles * uint32_t(kTileGroups * 16); }
};
template <int kSize>
WI_KERNEL_FN WholeTiles whole_tiles(const CudaJob& job, uint32_t at, uint32_t most) {
    constexpr uint64_t kPerBlock = kSize == 8 ? 2 : 4, kGroup = kSize == 8 ? 2 : 16 / kSize, kTile = kTileGroups * kGroup;
    constexpr uint32_t kTileBlocks = uint32_t(kTile / kPerBlock);
    const uint64_t before = job.index % kGroup, whole = (before + job.count) / kTile;  // tiles that end within the job
    const uint64_t first = job.index - before + uint64_t(at) * kTile, block = first / kPerBlock;
    uint32_t n = uint32_t(whole > at ? (whole - at < most ? whole - at : most) : 0);
    if (uint32_t(block) != 0) {  // tiles up to the end of the span
        const uint32_t left = (0u - uint32_t(block)) / kTileBlocks;
        if (left < n) n = left;
    }
    return {job.data + (first - job.index) * kSize, block, first >= job.index ? n : 0};
}

// Number of the first block of a tile, and after the last of the job; of a region's pieces, which are numbered from 0.
template <int kSize>
struct Blocks {
    static constexpr uint32_t kPerBlock = kSize == 8 ? 2 : 4, kGroup = kSize == 8 ? 2 : 16 / kSize;
    bool linear;
    uint32_t in_tile;
    uint64_t first, end;
    WI_KERNEL_FN explicit Blocks(const CudaJob& job)
        : linear(job.layout == Layout::kAligned || job.layout == Layout::kLinear),
          in_tile(kTileGroups * (linear ? kGroup / kPerBlock : 1)),
          first(linear ? job.index / kGroup * (kGroup / kPerBlock) : 0),
          end(linear ? (job.index + job.count - 1) / kPerBlock + 1 : job.count) {}
};

// Calls use(job, random, stretch, piece) for those blocks of the tiles that this thread takes.
template <int kSize, class Use>
WI_KERNEL_FN void each_block(const CudaJob& tiles_job, uint32_t tile, uint32_t tiles, const Use& use) {
    constexpr uint32_t kPerBlock = kSize == 8 ? 2 : 4;
    uint32_t done = 0;
#pragma unroll 1
    while (true) {  // once for each span of 2^32 blocks; a region has only one
        const CudaJob& share = read_again(tiles_job);
        const Blocks<kSize> blocks(share);
        const bool linear = blocks.linear;
        const uint64_t begin = blocks.first + uint64_t(tile) * blocks.in_tile + done;
        uint32_t count = tiles * blocks.in_tile - done;
        if (blocks.end - begin < count) count = uint32_t(blocks.end - begin);
        if (count == 0) return;
        const uint32_t in_span = 0u - uint32_t(begin);  // 0: 2^32
        if (kSize < 8 && in_span != 0 && in_span < count) count = in_span;
        RandomWords<kSize> random(share, uint32_t((linear ? begin : share.index / kPerBlock) >> 32));
        // Of consecutive memory: the address of the first block; elements of it before the job; and those up to the job's end, as
        // far as these blocks go.
        const uint64_t address = share.data + (begin * kPerBlock - share.index) * kSize;
        const uint32_t lead = begin * kPerBlock < share.index ? uint32_t(share.index - begin * kPerBlock) : 0;
        const uint64_t left = share.index + share.count - (begin * kPerBlock + lead), most = uint64_t(count) * kPerBlock;
        const uint32_t elements = linear ? uint32_t(left < most ? left : most) : share.run;
        const bool has_whole = share.layout != Layout::kRuns && elements >= kPerBlock;
        const Stretch stretch = {elements, has_whole ? elements - (kPerBlock - 1) : 0};
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < count; i += kThreads) {
            Piece piece = {begin + i, address + uint64_t(i) * (kPerBlock * kSize), int32_t(i * kPerBlock - lead)};
            uint32_t end = 0;  // of the elements in the piece; 0: it is one block
            if (!linear) {
                const CudaJob& job = read_again(tiles_job);
                piece = piece_of<kSize>(job, uint32_t(begin) + i);
                if (kSize < 8) {
                    end = uint32_t(piece.n) + job.piece;  // above 0: fewer elements than a block's precede the stretch
                    if (end > elements) end = elements;
                }
            }
#pragma unroll 1
            do {
                const CudaJob& job = read_again(tiles_job);
                use(job, random, stretch, piece);
                ++piece.block;
                piece.address += kPerBlock * job.run_stride;
                piece.n += kPerBlock;
            } while (uint32_t(piece.n) < end);
        }
        if (kSize == 8) return;  // RandomWords minds no span
        done += count;
    }
}

WI_KERNEL_FN const CudaJob* jobs_of(const CudaTable& table) { return table.far ? table.far : table.here; }

// The last job that begins at or before the tile. A step is 12 instructions: for a table of GPT-2's length 1.2 % of a share of float32
// normals.
WI_KERNEL_FN const CudaJob* job_of(const CudaTable& table, uint32_t tile) {
    const CudaJob* const jobs = jobs_of(table);
    uint32_t low = 0, high = table.jobs;
#pragma unroll 1
    while (high - low > 1) {
        const uint32_t middle = (low + high) / 2;
        if (jobs[middle].first_tile <= tile)
            low = middle;
        else
            high = middle;
    }
    return jobs + low;
}

// The first tile of a block of the launch, and so the one after the last of the block before.
WI_KERNEL_FN uint32_t begin_of_share(const CudaTable& table, uint32_t block) {
    return block * table.share + (block < table.longer ? block : table.longer);
}

// Calls fill(job, tile, last) for all tiles that are this block's: it does tiles of the job up to `last` at most, and moves `tile`.
// Little is held in registers meanwhile.
template <class Fill>
WI_KERNEL_FN void each_share(const CudaTable& table, const Fill& fill) {
    uint32_t tile = begin_of_share(table, blockIdx.x);
    if (tile == begin_of_share(table, blockIdx.x + 1)) return;
    const CudaJob* job = job_of(table, tile);
#pragma unroll 1
    while (true) {
        const uint32_t end = begin_of_share(table, blockIdx.x + 1);
        uint32_t last = job + 1 < jobs_of(table) + table.jobs ? job[1].first_tile : table.tiles;
        if (end < last) last = end;
        fill(*job, tile, last);
        if (tile == begin_of_share(table, blockIdx.x + 1)) return;
        if (tile == (job + 1 < jobs_of(table) + table.jobs ? job[1].first_tile : table.tiles)) ++job;
    }
}

}  // namespace WI_ISA
}  // namespace wi
