// Jobs as the GPU takes them: collapsed, aligned or not, cut into tiles. Host code without CUDA, shared with the emulation.
#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "../core/address.h"
#include "../core/philox.h"
#include "fill_cuda.h"

namespace wi {
namespace {

bool is_wide(Storage storage) { return storage == Storage::kFloat64; }

bool has_program(const FillJob& job) {
    switch (job.transform.kind) {
        case Kind::kBits: return job.storage == Storage::kUInt32;
        case Kind::kConstant:
        case Kind::kOneHot: return true;
        case Kind::kTruncNormalCentral: return job.storage <= Storage::kFloat8E5M2 && !is_wide(job.storage);
        default: return job.storage <= Storage::kFloat8E5M2;
    }
}

// The kind; for a uniform distribution with a large scale kUniformWide, which clamps, to infinities if kUniform would not.
int kind_of(const FillJob& job, CudaJob& out) {
    const Kind kind = job.transform.kind;
    const bool uniform = kind == Kind::kUniform || kind == Kind::kUniformClamped;
    if (!uniform || is_wide(job.storage) || out.params32[1] < kGridScaleLimit) return int(kind);
    if (kind == Kind::kUniform) {
        out.params32[2] = -std::numeric_limits<float>::infinity();
        out.params32[3] = std::numeric_limits<float>::infinity();
    }
    return kUniformWide;
}

CudaJob make_job(const FillJob& job, const Region& r) {
    CudaJob out;
    memset(static_cast<void*>(&out), 0, sizeof out);
    out.data = uint64_t(reinterpret_cast<uintptr_t>(job.data));
    out.index = job.index;
    out.count = r.count;
    out.seed = job.draw.seed;
    out.stream = job.draw.stream;
    for (int i = 0; i < kMaxParams; ++i) {
        if (is_wide(job.storage))
            out.params64[i] = job.transform.f64(i);
        else
            out.params32[i] = job.transform.f32(i);
    }
    for (int i = 0; i < kMaxIntegers; ++i) out.integers[i] = job.transform.integer(i);
    out.kind = uint8_t(kind_of(job, out));
    out.storage = uint8_t(job.storage);
    return out;
}

uint64_t per_block_of(Storage storage) { return item_size(storage) == 8 ? 2 : 4; }

uint64_t lay_out_linear(CudaJob& out, Storage storage) {
    const uint64_t size = uint64_t(item_size(storage)), group = uint64_t(group_elements(storage));
    const uint64_t before = out.index % group;  // elements of the first group that precede the job
    out.layout = (out.data - before * size) % 16 == 0 ? Layout::kAligned : Layout::kLinear;
    out.run_stride = uint32_t(size);
    const uint64_t groups = (before + out.count + group - 1) / group;
    return (groups + kTileGroups - 1) / kTileGroups;
}

struct Counted {  // a dimension that the kernels count through
    uint64_t size;
    int64_t bytes, step;
};

void set_dim(CudaJob& out, size_t d, const Counted& dim) {
    int shift = 0;
    while (uint64_t(1) << shift < dim.size) ++shift;
    const uint64_t factor = ((uint64_t(1) << shift) - dim.size) * (uint64_t(1) << 32) / dim.size + 1;
    out.dims[d] = {uint32_t(dim.size), uint32_t(factor), uint32_t(dim.bytes), uint32_t(dim.step)};
    out.shifts[d] = uint8_t(shift);
}

// Runs of a region, and whether each can be walked by one stride.
struct Runs {
    int outer;
    uint64_t length;
    bool even;
};

// A run of several dimensions is taken as many of its innermost one where that one wastes few blocks.
Runs runs_of(const Region& r, uint64_t per_block) {
    if (r.ndim - r.outer <= 1) return {r.outer, r.run, true};
    const uint64_t innermost = uint64_t(r.dims[r.ndim - 1].size);
    if (innermost % per_block != 0 && innermost < 16 * per_block) return {r.outer, r.run, false};
    return {r.ndim - 1, innermost, true};
}

// How far a region reaches, in memory and in the global index; with a block that is only partly in it.
struct Reach {
    uint64_t bytes, index;
    bool one_span;  // all its Philox blocks have one high half of their numbers
};

Reach reach_of(const FillJob& job, const Region& r) {
    const uint64_t per_block = per_block_of(job.storage);
    uint64_t index = 0, elements = per_block * uint64_t(r.ndim == r.outer ? 1 : r.dims[r.ndim - 1].stride);
    for (int d = 0; d < r.ndim; ++d) {
        index += uint64_t(r.dims[d].size - 1) * uint64_t(r.dims[d].step);
        elements += uint64_t(r.dims[d].size - 1) * uint64_t(r.dims[d].stride);
    }
    const bool one_span = job.index / per_block >> 32 == (job.index + index) / per_block >> 32;
    return {elements * uint64_t(item_size(job.storage)), index + per_block, one_span};
}

constexpr uint64_t kMostBytes = uint64_t(1) << 31, kMostIndex = uint64_t(1) << 32;

// The dimension of a region that is too much for one job along which it is cut: the one that reaches farthest; the shortest one
// where it is the number of dimensions.
int dim_to_cut(const Reach& reach, const Region& r) {
    const auto before = [&](const Dim& a, const Dim& b) {
        if (reach.bytes >= kMostBytes) return (a.size - 1) * a.stride > (b.size - 1) * b.stride;
        if (reach.index >= kMostIndex || !reach.one_span) return (a.size - 1) * a.step > (b.size - 1) * b.step;
        return a.size < b.size;
    };
    return int(std::min_element(r.dims, r.dims + r.ndim, before) - r.dims);
}

// Whether each run has the elements of whole groups, and these can be stored at once.
bool has_whole_groups(const CudaJob& job, Storage storage, const Region& r, const Runs& runs) {
    const uint64_t size = uint64_t(item_size(storage)), group = uint64_t(group_elements(storage));
    bool whole = job.run_stride == size && job.data % 16 == 0 && job.index % group == 0 && runs.length % group == 0;
    for (int d = 0; d < runs.outer; ++d)
        whole = whole && uint64_t(r.dims[d].step) % group == 0 && uint64_t(r.dims[d].stride) * size % 16 == 0;
    return whole;
}

// In short runs fewer: the last piece of a run is hardly ever whole.
uint64_t blocks_of_piece(uint64_t run_blocks) {
    uint64_t blocks = kPieceBlocks;
    while (blocks > 1 && run_blocks < 4 * blocks) blocks /= 2;
    return blocks;
}

// Returns 0 if there are more dimensions or pieces than the kernels take.
uint64_t lay_out_runs(CudaJob& out, Storage storage, Mode mode, const Region& r) {
    const int64_t size = item_size(storage);
    uint64_t per_block = per_block_of(storage);
    const Runs runs = runs_of(r, per_block);
    const int64_t stride = (runs.outer == r.ndim ? 1 : r.dims[r.ndim - 1].stride) * size;
    out.layout = runs.even ? Layout::kRows : Layout::kRuns;
    out.run_stride = runs.even ? uint32_t(stride) : 0;
    out.run = uint32_t(runs.length);
    uint64_t run_pieces = (runs.length + per_block - 2) / per_block + 1;  // blocks that a run can touch
    if (mode == Mode::kStore && has_whole_groups(out, storage, r, runs)) {
        out.layout = Layout::kGroups;
        per_block = uint64_t(group_elements(storage));
        run_pieces = runs.length / per_block;
    } else if (runs.even && size < 8) {
        const uint64_t blocks = blocks_of_piece(run_pieces);
        per_block *= blocks;
        run_pieces = (run_pieces + blocks - 1) / blocks;
    }
    out.piece = uint8_t(per_block);
    out.count = r.count / runs.length * run_pieces;

    std::vector<Counted> dims;  // the one that counts fastest first
    for (int d = runs.outer; d-- > 0;) dims.push_back({uint64_t(r.dims[d].size), r.dims[d].stride * size, r.dims[d].step});
    // Neighbouring threads are to write to neighbouring memory: the smallest stride is counted fastest.
    std::stable_sort(dims.begin(), dims.end(), [](const Counted& a, const Counted& b) { return a.bytes < b.bytes; });
    const int64_t piece_bytes = runs.even ? int64_t(per_block) * stride : 0;
    out.block_dim = !dims.empty() && runs.even && dims[0].bytes < piece_bytes;
    dims.insert(dims.begin() + out.block_dim, {run_pieces, piece_bytes, int64_t(per_block)});
    if (dims.size() < 2) dims.push_back({1, 0, 0});
    out.outer = uint8_t(dims.size());
    for (int d = r.ndim; !runs.even && d-- > runs.outer;)
        dims.push_back({uint64_t(r.dims[d].size), r.dims[d].stride * size, 0});
    if (dims.size() > size_t(kGridDims) || out.count >> 31) return 0;
    out.ndim = uint8_t(dims.size());
    for (size_t d = 0; d < dims.size(); ++d) set_dim(out, d, dims[d]);
    return (out.count + kTileGroups - 1) / kTileGroups;
}

// For one kernel. What is too much for one of its jobs is cut in halves, again and again.
void append(CudaPart& part, const FillJob& job, Mode mode) {
    const Region region = collapse(job.dims, job.ndim);
    CudaJob out = make_job(job, region);
    const bool linear = region.outer == 0 && region.contiguous;
    const Reach reach = reach_of(job, region);
    uint64_t tiles = 0;
    if (linear)
        tiles = lay_out_linear(out, job.storage);
    else if (reach.bytes < kMostBytes && reach.index < kMostIndex && reach.one_span)
        tiles = lay_out_runs(out, job.storage, mode, region);
    if (tiles == 0) {
        const int cut = dim_to_cut(reach, region);
        FillJob half = job;
        half.ndim = region.ndim;
        std::copy(region.dims, region.dims + region.ndim, half.dims);
        const Dim whole = region.dims[cut];
        half.dims[cut].size = whole.size / 2;
        append(part, half, mode);
        half.data += half.dims[cut].size * whole.stride * item_size(job.storage);
        half.index += uint64_t(half.dims[cut].size * whole.step);
        half.dims[cut].size = whole.size - half.dims[cut].size;
        return append(part, half, mode);
    }
    out.first_tile = part.tiles;
    if (part.tiles + tiles >= uint64_t(1) << 32) throw std::invalid_argument("too many elements for one launch");
    part.tiles += uint32_t(tiles);
    part.jobs.push_back(out);
}

Kernel kernel_of(Storage storage, Mode mode) {
    if (mode != Mode::kStore) return Kernel::kCombine;
    switch (item_size(storage)) {
        case 1: return Kernel::kFill8;
        case 2: return Kernel::kFill16;
        case 4: return Kernel::kFill32;
        default: return Kernel::kFill64;
    }
}

}  // namespace

std::vector<CudaPart> make_parts(const std::vector<FillJob>& jobs, Mode mode) {
    std::vector<CudaPart> parts;
    for (const FillJob& job : jobs) {
        if (!has_program(job)) continue;  // the kernels rely on it
        const Kernel kernel = kernel_of(job.storage, mode);
        auto part = std::find_if(parts.begin(), parts.end(), [=](const CudaPart& p) { return p.kernel == kernel; });
        if (part == parts.end()) part = parts.insert(part, CudaPart{kernel, {}, 0});
        append(*part, job, mode);
    }
    return parts;
}

uint64_t drawn_seed(uint64_t generator_seed, uint64_t position) {
    using namespace scalar;
    uint32_t w[8];
    for (uint64_t i = 0; i < 2; ++i) {
        const uint64_t block = position / 4 + i;
        philox4x32_10(uint32_t(block), PhiloxSpan<uint32_t>(generator_seed, ~uint64_t(0), uint32_t(block >> 32)), w + 4 * i);
    }
    return uint64_t(w[position % 4]) << 32 | w[position % 4 + 1];
}

}  // namespace wi
