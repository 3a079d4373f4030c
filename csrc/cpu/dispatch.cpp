#include "dispatch.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <chrono>
#include <cstring>

#include "../core/address.h"
#include "blocks.h"
#include "kernels.h"
#include "parallel.h"

namespace wi {
namespace {

// What a thread takes at least: 3 us of uniform float32. A multiple of the kernels' own tiles, or each would end in a slow rest.
constexpr uint64_t kTileElements = 20 * 768;
constexpr uint64_t kScatterElements = 2048;  // made consecutively, then stored where the strides say
constexpr uint64_t kCombineElements = 1536;  // made, then combined while they are in L1: whole tiles of blocks

struct Isa {
    std::string name;
    RunFn (*find_run)(Kind, Storage);
    CombineFn (*find_combine)(Mode, Storage);
    StoreColumnsFn (*find_store_columns)(int item_size);
    RunFn (*find_bfloat16)(Kind) = nullptr;  // kernels for values none of which is subnormal
};

#if defined(__x86_64__)
bool has_bfloat16_conversion() {  // compilers before GCC 11 cannot be asked
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 5 & 1;
}
#endif

std::vector<Isa> find_isas() {
    std::vector<Isa> isas;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
        const Isa avx512 = {"avx512", find_run_avx512, find_combine_avx512, find_store_columns_avx512};
        if (has_bfloat16_conversion() && find_bfloat16_avx512bf16(Kind::kNormal)) {
            Isa with_bfloat16 = avx512;
            with_bfloat16.name = "avx512bf16";
            with_bfloat16.find_bfloat16 = find_bfloat16_avx512bf16;
            isas.push_back(with_bfloat16);
        }
        isas.push_back(avx512);
    }
    if (avx2) isas.push_back({"avx2", find_run_avx2, find_combine_avx2, find_store_columns_avx2});
#elif defined(__aarch64__)
    isas.push_back({"neon", find_run_neon, find_combine_neon, find_store_columns_neon});
#endif
    isas.push_back({"scalar", find_run_scalar, find_combine_scalar, find_store_columns_scalar});
    return isas;
}

const std::vector<Isa>& isas() {
    static const std::vector<Isa> found = find_isas();
    return found;
}

const Isa*& current() {
    static const Isa* isa = &isas().front();
    return isa;
}

// Constant and one-hot rows need no random words and no floating point: one version for all ISAs.
template <class T>
void run_constant(void* out, uint64_t, uint64_t n, const Transform& transform, const Draw&) {
    std::fill_n(static_cast<T*>(out), n, T(transform.integers[0]));
}

template <class T>
void run_one_hot(void* memory, uint64_t index, uint64_t n, const Transform& transform, const Draw&) {
    const int64_t* p = transform.integers;
    const uint64_t row = uint64_t(p[0]), period = uint64_t(p[1]), limit = uint64_t(p[2]), offset = uint64_t(p[3]),
                   step = uint64_t(p[4]);
    T* out = static_cast<T*>(memory);
    memset(memory, 0, n * sizeof(T));
    if (n == 0) return;
    for (uint64_t r = index / row, last = (index + n - 1) / row;; ++r) {  // index + n may be 2^64
        const uint64_t k = r % period, at = r * row + offset + k * step;
        if (k < limit && at - index < n) out[at - index] = T(p[5]);
        if (r == last) return;
    }
}

// What a value takes one thread, about: to decide how many threads are worth it. Measured at 2^16 values with AVX-512 (EPYC 9004);
// AVX2 takes up to 1.6 times as long, narrow types 1.3 times, scalar kernels 10 times at least.
double nanoseconds_of(Kind kind, Storage storage) {
    const bool wide = storage == Storage::kFloat64;
    const double scale = current()->name == "scalar" ? 10 : 1;
    switch (kind) {
        case Kind::kConstant:
        case Kind::kOneHot: return 0.03 * item_size(storage);
        case Kind::kNormal: return scale * (wide ? 1.7 : 0.6);
        case Kind::kTruncNormalCentral: return scale * 0.6;
        case Kind::kTruncNormal: return scale * (wide ? 5.8 : 1.1);
        default: return scale * (wide ? 0.9 : 0.36);
    }
}

template <template <class> class Fn>
RunFn by_size(Storage storage) {
    switch (item_size(storage)) {
        case 1: return Fn<uint8_t>::run;
        case 2: return Fn<uint16_t>::run;
        case 4: return Fn<uint32_t>::run;
        default: return Fn<uint64_t>::run;
    }
}
template <class T>
struct ConstantRun {
    static constexpr RunFn run = run_constant<T>;
};
template <class T>
struct OneHotRun {
    static constexpr RunFn run = run_one_hot<T>;
};

// Whether no float32 value of a distribution is subnormal: then a conversion that takes such values for 0 may be used. With the names
// of core/distributions.h: r >= 2^-50, and cos and sin are 0 or >= 2^-32 (tests/native/bfloat16_proofs.cpp), so their product is 0 or
// >= 2^-82; a central quantile is 0 or >= 2^-83 where scale and center are multiples of 2^-83, as float32 from 2^-60 on is. Times a std
// >= 2^-40 both stay normal; a sum with a mean >= 2^-40 is 0 or a multiple of 2^-88, since a product has 48 bits. A uniform value is
// 0 or a multiple of 2^-126 where low and scale are, as float32 from 2^-103 on is.
bool has_no_subnormals(const Transform& transform) {
    const auto all_0_or_from = [&](double least, int begin, int end) {
        for (int i = begin; i < end; ++i) {
            const double x = transform.f64(i);  // as float32, it might be taken for 0 here, too
            if (x != 0 && x < least && x > -least) return false;
        }
        return true;
    };
    switch (transform.kind) {
        case Kind::kUniform: return all_0_or_from(0x1p-103, 0, 2);
        case Kind::kUniformClamped: return all_0_or_from(0x1p-103, 0, 4);
        case Kind::kNormal: return all_0_or_from(0x1p-40, 0, 2);
        case Kind::kTruncNormalCentral:
            return all_0_or_from(0x1p-60, 0, 2) && all_0_or_from(0x1p-40, 2, 4) && all_0_or_from(0x1p-126, 4, 6);
        default: return false;
    }
}

RunFn find_run(const Transform& transform, Storage storage) {
    if (transform.kind == Kind::kConstant) return by_size<ConstantRun>(storage);
    if (transform.kind == Kind::kOneHot) return by_size<OneHotRun>(storage);
    if (storage == Storage::kBFloat16 && current()->find_bfloat16 && has_no_subnormals(transform))
        return current()->find_bfloat16(transform.kind);
    return current()->find_run(transform.kind, storage);
}

// Copies between consecutive values and the elements [first, first + n) of a run.
template <class T, bool kScatter>
void move_as(char* data, T* values, const Region& r, uint64_t first, uint64_t n) {
    const Dim& inner = r.dims[r.ndim - 1];
    const uint64_t size = uint64_t(inner.size);
    for (uint64_t done = 0; done < n;) {  // once a stretch of the innermost dimension
        const uint64_t at = (first + done) % size, stretch = std::min(size - at, n - done);
        T* at_memory = reinterpret_cast<T*>(data) + place_of(r, r.outer, r.ndim, first + done).memory;
        for (uint64_t i = 0; i < stretch; ++i) {
            T &there = at_memory[int64_t(i) * inner.stride], &here = values[done + i];
            kScatter ? there = here : here = there;
        }
        done += stretch;
    }
}

template <bool kScatter>
void move(char* data, void* values, int size, const Region& r, uint64_t first, uint64_t n) {
    switch (size) {
        case 1: return move_as<uint8_t, kScatter>(data, static_cast<uint8_t*>(values), r, first, n);
        case 2: return move_as<uint16_t, kScatter>(data, static_cast<uint16_t*>(values), r, first, n);
        case 4: return move_as<uint32_t, kScatter>(data, static_cast<uint32_t*>(values), r, first, n);
        default: return move_as<uint64_t, kScatter>(data, static_cast<uint64_t*>(values), r, first, n);
    }
}

// How elements come to be.
struct Program {
    RunFn run;
    CombineFn combine;  // null: values are stored as they are made
    double weight;
};

// Makes n <= kCombineElements values and combines them with consecutive memory.
void combine_portion(char* memory, const FillJob& job, const Draw& draw, const Program& program, uint64_t index, uint64_t n) {
    alignas(64) uint64_t made[kCombineElements];
    program.run(made, index, n, job.transform, draw);
    program.combine(memory, made, n, program.weight);
}

// Elements [first, first + n) of the region, in row-major order.
void fill_range(const FillJob& job, const Draw& draw, const Program& program, const Region& r, uint64_t first, uint64_t n) {
    const int size = item_size(job.storage);
    while (n > 0) {
        const uint64_t in_run = first % r.run;
        const Place outer = place_of(r, 0, r.outer, first / r.run);
        char* data = job.data + outer.memory * size;
        const uint64_t index = job.index + uint64_t(outer.index) + in_run;
        uint64_t part = std::min(n, r.run - in_run);
        if (program.combine) part = std::min(part, kCombineElements - index % 4);  // so that the next one begins with a block
        if (r.contiguous) {
            char* const memory = data + int64_t(in_run) * size;
            if (program.combine)
                combine_portion(memory, job, draw, program, index, part);
            else
                program.run(memory, index, part, job.transform, draw);
        } else {
            part = std::min(part, kScatterElements);
            alignas(64) uint64_t values[kScatterElements];
            if (program.combine) {
                move<false>(data, values, size, r, in_run, part);
                combine_portion(reinterpret_cast<char*>(values), job, draw, program, index, part);
            } else {
                program.run(values, index, part, job.transform, draw);
            }
            move<true>(data, values, size, r, in_run, part);
        }
        first += part;
        n -= part;
    }
}

uint64_t tiles_of(uint64_t elements) { return (elements + kTileElements - 1) / kTileElements; }

}  // namespace

const std::vector<std::string>& available_isas() {
    static const std::vector<std::string> names = [] {
        std::vector<std::string> result;
        for (const Isa& isa : isas()) result.push_back(isa.name);
        return result;
    }();
    return names;
}

const std::string& selected_isa() { return current()->name; }

bool select_isa(const std::string& name) {
    for (const Isa& isa : isas()) {
        if (isa.name == name) {
            current() = &isa;
            return true;
        }
    }
    return false;
}

bool has_kernel(const Transform& transform, Storage storage) { return find_run(transform, storage) != nullptr; }

bool can_combine(Mode mode, Storage storage) { return mode == Mode::kStore || current()->find_combine(mode, storage); }

struct CpuFill::Prepared {
    Program program;
    Region region;
    Blocks blocks;  // its tiles; without any, tiles are consecutive elements
    StoreColumnsFn store_columns;
};

FillJob WholeJobs::as_job(const Job& job) const {
    FillJob made = {};
    made.data = job.data;
    made.storage = job.storage;
    made.transform = transforms[job.transform];
    made.draw = job.draw;
    made.ndim = 1;
    made.dims[0] = {int64_t(job.count), 1, 1};
    return made;
}

CpuFill::CpuFill(std::vector<FillJob> jobs, Combine combine) : jobs_(std::move(jobs)) {
    prepared_.reserve(jobs_.size());
    for (const FillJob& job : jobs_) add(job, combine);
}

CpuFill::CpuFill(WholeJobs whole, std::vector<FillJob> jobs) : whole_(std::move(whole)), jobs_(std::move(jobs)) {
    runs_.reserve(whole_.jobs.size());
    prepared_.reserve(jobs_.size());
    first_tile_.reserve(whole_.jobs.size() + jobs_.size() + 1);
    for (const WholeJobs::Job& job : whole_.jobs) add(job);
    for (const FillJob& job : jobs_) add(job, {});
}

CpuFill::~CpuFill() = default;

void CpuFill::add(const WholeJobs::Job& job) {
    const Transform& transform = whole_.transforms[job.transform];
    runs_.push_back(find_run(transform, job.storage));
    add_tiles(tiles_of(job.count), job.count, transform.kind, job.storage);
}

void CpuFill::add(const FillJob& job, const Combine& combine) {
    const Region region = collapse(job.dims, job.ndim);
    const RunFn run = find_run(job.transform, made_storage(combine.mode, job.storage));
    const Program program = {run, current()->find_combine(combine.mode, job.storage), combine.weight};
    const Blocks blocks = program.combine ? Blocks{} : blocks_of(job, region);
    prepared_.push_back({program, region, blocks, current()->find_store_columns(item_size(job.storage) * blocks.per_item)});
    add_tiles(blocks.count ? blocks.count : tiles_of(region.count), region.count, job.transform.kind, job.storage);
}

void CpuFill::add_tiles(uint64_t tiles, uint64_t elements, Kind kind, Storage storage) {
    first_tile_.push_back(first_tile_.back() + int64_t(tiles));
    nanoseconds_ += double(elements) * nanoseconds_of(kind, storage);
}

void CpuFill::run_tiles(int64_t begin, int64_t end, const uint64_t* seed) const {
    const auto after = std::upper_bound(first_tile_.begin(), first_tile_.end(), begin);
    const size_t whole = whole_.jobs.size();
    for (size_t i = size_t(after - first_tile_.begin()) - 1; begin < end; ++i) {
        const int64_t last = std::min(end, first_tile_[i + 1]);
        const uint64_t from = uint64_t(begin - first_tile_[i]), to = uint64_t(last - first_tile_[i]);
        i < whole ? run_whole(i, from, to, seed) : run_other(i - whole, from, to, seed);
        begin = last;
    }
}

void CpuFill::run_whole(size_t i, uint64_t from, uint64_t to, const uint64_t* seed) const {
    const WholeJobs::Job& job = whole_.jobs[i];
    const uint64_t first = from * kTileElements, n = std::min(to * kTileElements, job.count) - first;
    const Draw draw = {seed ? *seed : job.draw.seed, job.draw.stream};
    runs_[i](job.data + first * uint64_t(item_size(job.storage)), first, n, whole_.transforms[job.transform], draw);
}

void CpuFill::run_other(size_t i, uint64_t from, uint64_t to, const uint64_t* seed) const {
    const FillJob& job = jobs_[i];
    const Prepared& p = prepared_[i];
    const Draw draw = {seed ? *seed : job.draw.seed, job.draw.stream};
    if (p.blocks.count) return fill_blocks(job, draw, p.blocks, p.program.run, p.store_columns, from, to);
    const uint64_t first = from * kTileElements, n = std::min(to * kTileElements, p.region.count) - first;
    fill_range(job, draw, p.program, p.region, first, n);
}

void fill_small(const Transform& transform, Storage storage, const Draw& draw, char* data, uint64_t count) {
    struct Small {
        const Transform& transform;
        Storage storage;
        const Draw& draw;
        char* data;
        uint64_t count;
    } small{transform, storage, draw, data, count};
    const RangeFn fill = [](void* context, int64_t, int64_t) noexcept {
        const Small& s = *static_cast<Small*>(context);
        find_run(s.transform, s.storage)(s.data, 0, s.count, s.transform, s.draw);
    };
    parallel_tiles(0, 1, 1, {}, fill, &small);
}

void CpuFill::run(int64_t begin, int64_t end, int threads, const uint64_t* seed) const noexcept {
    struct Run {
        const CpuFill& fill;
        const uint64_t* seed;
    } run{*this, seed};
    const RangeFn tiles = [](void* context, int64_t first, int64_t last) noexcept {
        const Run& r = *static_cast<Run*>(context);
        r.fill.run_tiles(first, last, r.seed);
    };
    const std::chrono::nanoseconds expected(int64_t(std::min(nanoseconds_, 1e15)));
    parallel_tiles(begin, end, threads, expected, tiles, &run);
}

}  // namespace wi
