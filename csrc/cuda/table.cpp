// Jobs as the GPU takes them: collapsed, aligned or not, cut into tiles. Host code without CUDA, shared with the emulation.
#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "../core/address.h"
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
    out.program = uint16_t(kind_of(job, out) * kStorages + int(job.storage));
    return out;
}

uint64_t tiles_of(CudaJob& out, Storage storage, const Region& r) {
    const uint64_t size = uint64_t(item_size(storage)), group = uint64_t(group_elements(storage));
    const uint64_t per_block = size == 8 ? 2 : 4;
    if (r.outer == 0 && r.contiguous) {
        const uint64_t before = out.index % group;  // elements of the first group that precede the job
        out.layout = Layout::kLinear;
        out.aligned = (out.data - before * size) % 16 == 0;
        const uint64_t groups = (before + out.count + group - 1) / group;
        return (groups + kTileGroups - 1) / kTileGroups;
    }
    out.layout = Layout::kRuns;
    out.run = r.run;
    out.run_groups = (r.run + per_block - 2) / per_block + 1;
    out.ndim = r.ndim;
    out.outer = r.outer;
    for (int d = 0; d < r.ndim; ++d) out.dims[d] = r.dims[d];
    out.count = r.count / r.run * out.run_groups;
    return (out.count + kTileGroups - 1) / kTileGroups;
}

// For one kernel: jobs of more dimensions than it takes become several.
void append(CudaPart& part, const FillJob& job) {
    const Region region = collapse(job.dims, job.ndim);
    if (region.ndim > kGridDims) {  // one job for each index of the outermost dimension
        FillJob inner = job;
        inner.ndim = region.ndim - 1;
        std::copy(region.dims + 1, region.dims + region.ndim, inner.dims);
        for (int64_t i = 0; i < region.dims[0].size; ++i) {
            inner.data = job.data + i * region.dims[0].stride * item_size(job.storage);
            inner.index = job.index + uint64_t(i * region.dims[0].step);
            append(part, inner);
        }
        return;
    }
    CudaJob out = make_job(job, region);
    out.first_tile = part.tiles;
    const uint64_t tiles = part.tiles + tiles_of(out, job.storage, region);
    if (tiles >= uint64_t(1) << 32) throw std::invalid_argument("too many elements for one launch");
    part.tiles = uint32_t(tiles);
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
        const Kernel kernel = kernel_of(job.storage, mode);
        auto part = std::find_if(parts.begin(), parts.end(), [=](const CudaPart& p) { return p.kernel == kernel; });
        if (part == parts.end()) part = parts.insert(part, CudaPart{kernel, {}, 0});
        append(*part, job);
    }
    return parts;
}

}  // namespace wi
