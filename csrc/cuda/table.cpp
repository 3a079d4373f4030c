// Jobs as the GPU takes them: collapsed, aligned or not, cut into tiles. Host code without CUDA, shared with the emulation.
#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "../core/address.h"
#include "../cpu/dispatch.h"
#include "fill_cuda.h"

namespace wi {
namespace {

bool is_wide(Storage storage) { return storage == Storage::kFloat64; }

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

// Whether offsets within a region, and of a block that is partly in it, fit into 32 bits (of bytes, with a sign), and all its Philox
// blocks have one high half of their numbers.
bool is_near(const FillJob& job, const Region& r) {
    const uint64_t per_block = per_block_of(job.storage);
    uint64_t index = 0, elements = per_block * uint64_t(r.ndim == r.outer ? 1 : r.dims[r.ndim - 1].stride);
    for (int d = 0; d < r.ndim; ++d) {
        index += uint64_t(r.dims[d].size - 1) * uint64_t(r.dims[d].step);
        elements += uint64_t(r.dims[d].size - 1) * uint64_t(r.dims[d].stride);
    }
    const bool one_span = job.index / per_block >> 32 == (job.index + index) / per_block >> 32;
    return one_span && (index + per_block) >> 32 == 0 && elements * uint64_t(item_size(job.storage)) >> 31 == 0;
}

// Returns 0 if there are more dimensions or blocks than the kernels take.
uint64_t lay_out_runs(CudaJob& out, Storage storage, const Region& r) {
    const int64_t size = item_size(storage);
    const uint64_t per_block = per_block_of(storage);
    const Runs runs = runs_of(r, per_block);
    const uint64_t run_blocks = (runs.length + per_block - 2) / per_block + 1;  // that a run can touch
    const int64_t stride = (runs.outer == r.ndim ? 1 : r.dims[r.ndim - 1].stride) * size;
    out.layout = runs.even ? Layout::kRows : Layout::kRuns;
    out.run_stride = runs.even ? uint32_t(stride) : 0;
    out.run = uint32_t(runs.length);
    out.count = r.count / runs.length * run_blocks;

    std::vector<Counted> dims;  // the one that counts fastest first
    for (int d = runs.outer; d-- > 0;) dims.push_back({uint64_t(r.dims[d].size), r.dims[d].stride * size, r.dims[d].step});
    // Neighbouring threads are to write to neighbouring memory: the smallest stride is counted fastest.
    std::stable_sort(dims.begin(), dims.end(), [](const Counted& a, const Counted& b) { return a.bytes < b.bytes; });
    const int64_t block_bytes = runs.even ? int64_t(per_block) * stride : 0;
    out.block_dim = !dims.empty() && runs.even && dims[0].bytes < block_bytes;
    dims.insert(dims.begin() + out.block_dim, {run_blocks, block_bytes, int64_t(per_block)});
    if (dims.size() < 2) dims.push_back({1, 0, 0});
    out.outer = uint8_t(dims.size());
    for (int d = r.ndim; !runs.even && d-- > runs.outer;) dims.push_back({uint64_t(r.dims[d].size), r.dims[d].stride * size, 0});
    if (dims.size() > size_t(kGridDims) || out.count >> 31) return 0;
    out.ndim = uint8_t(dims.size());
    for (size_t d = 0; d < dims.size(); ++d) set_dim(out, d, dims[d]);
    return (out.count + kTileGroups - 1) / kTileGroups;
}

// For one kernel. What is too much for one of its jobs is cut in halves along the outermost dimension, again and again.
void append(CudaPart& part, const FillJob& job) {
    const Region region = collapse(job.dims, job.ndim);
    CudaJob out = make_job(job, region);
    const bool linear = region.outer == 0 && region.contiguous;
    uint64_t tiles = 0;
    if (linear)
        tiles = lay_out_linear(out, job.storage);
    else if (is_near(job, region))
        tiles = lay_out_runs(out, job.storage, region);
    if (tiles == 0) {
        FillJob half = job;
        half.ndim = region.ndim;
        std::copy(region.dims, region.dims + region.ndim, half.dims);
        const Dim whole = region.dims[0];
        half.dims[0].size = whole.size / 2;
        append(part, half);
        half.data += half.dims[0].size * whole.stride * item_size(job.storage);
        half.index += uint64_t(half.dims[0].size * whole.step);
        half.dims[0].size = whole.size - half.dims[0].size;
        return append(part, half);
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
        if (!has_kernel(job.transform, job.storage)) continue;  // the kernels rely on it
        const Kernel kernel = kernel_of(job.storage, mode);
        auto part = std::find_if(parts.begin(), parts.end(), [=](const CudaPart& p) { return p.kernel == kernel; });
        if (part == parts.end()) part = parts.insert(part, CudaPart{kernel, {}, 0});
        append(*part, job);
    }
    return parts;
}

}  // namespace wi
