// csrc/cuda/launch.cpp on a CUDA runtime that this file plays: it notes what it is asked, and runs every launch on the CPU by the
// emulated kernels (emulated_kernels.cpp). Prints every failure and `N passed, N failed`; the exit status is 0 if none failed.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/kernels.h"
#include "cuda/fill_cuda.h"

namespace wi {  // the plainest evaluator alone is linked
RunFn find_run_avx2(Kind, Storage) { return nullptr; }
RunFn find_run_avx512(Kind, Storage) { return nullptr; }
RunFn find_run_neon(Kind, Storage) { return nullptr; }
RunFn find_bfloat16_avx512bf16(Kind) { return nullptr; }
CombineFn find_combine_avx2(Mode, Storage) { return nullptr; }
StoreColumnsFn find_store_columns_avx2(int) { return nullptr; }
CombineFn find_combine_avx512(Mode, Storage) { return nullptr; }
StoreColumnsFn find_store_columns_avx512(int) { return nullptr; }
CombineFn find_combine_neon(Mode, Storage) { return nullptr; }
}  // namespace wi

using namespace wi;

// ---- the runtime ---------------------------------------------------------------------------------------------------------

namespace {

constexpr int kMultiprocessors = 3, kDevices = 3, kUnknownDevice = 2;  // the last one is of a kind that there is no code for

struct Launch {
    Kernel kernel;
    uint32_t jobs, tiles;
    bool far;
    int device;
    cudaStream_t stream;
};

struct Runtime {
    int device = 0;
    bool capturing = false;
    cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    std::vector<std::pair<int, Kernel>> loads;
    std::vector<Launch> launches;
} runtime;

const char functions[5] = {};
Kernel kernel_of(const void* function) { return Kernel(static_cast<const char*>(function) - functions); }

}  // namespace

namespace wi {
const void* fill_kernel_8bit() { return &functions[int(Kernel::kFill8)]; }
const void* fill_kernel_16bit() { return &functions[int(Kernel::kFill16)]; }
const void* fill_kernel_32bit() { return &functions[int(Kernel::kFill32)]; }
const void* fill_kernel_64bit() { return &functions[int(Kernel::kFill64)]; }
const void* combine_kernel() { return &functions[int(Kernel::kCombine)]; }
}  // namespace wi

extern "C" void gpu_thread(int kernel, const unsigned char* param, uint32_t tid, uint32_t ctaid, uint32_t nctaid);
extern "C" void gpu_write(uint64_t, uint32_t) {}

const char* cudaGetErrorName(cudaError_t error) {
    return error == cudaErrorNoKernelImageForDevice ? "cudaErrorNoKernelImageForDevice" : "another error";
}
const char* cudaGetErrorString(cudaError_t) { return "in words"; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaSetDevice(int device) {
    if (device >= kDevices) return cudaErrorInvalidDevice;
    runtime.device = device;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
    *device = runtime.device;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
    *value = attribute == cudaDevAttrMultiProcessorCount      ? kMultiprocessors
             : attribute == cudaDevAttrComputeCapabilityMajor ? 7 + device
                                                              : 3;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int, size_t) {
    *blocks = kResidentBlocks;
    return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
    std::swap(*mode, runtime.mode);
    return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, const void* function) {  // loads the function, as CUDA's does
    if (runtime.capturing && runtime.mode != cudaStreamCaptureModeRelaxed) return cudaErrorStreamCaptureUnsupported;
    runtime.loads.emplace_back(runtime.device, kernel_of(function));
    return runtime.device == kUnknownDevice ? cudaErrorNoKernelImageForDevice : cudaSuccess;
}
cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments, size_t, cudaStream_t stream) {
    const Kernel kernel = kernel_of(function);
    const std::pair<int, Kernel> needed(runtime.device, kernel);
    if (std::count(runtime.loads.begin(), runtime.loads.end(), needed) != 1) return cudaErrorStreamCaptureUnsupported;
    const CudaTable& table = static_cast<CombineTable*>(arguments[0])->table;
    runtime.launches.push_back({kernel, table.jobs, table.tiles, table.far != nullptr, runtime.device, stream});
    for (uint32_t i = 0; i < grid.x; ++i)
        for (uint32_t thread = 0; thread < block.x; ++thread)
            gpu_thread(int(kernel), static_cast<unsigned char*>(arguments[0]), thread, i, grid.x);
    return cudaSuccess;
}

// ---- the tests -----------------------------------------------------------------------------------------------------------

namespace {

int passed = 0, failed = 0;

void expect(bool ok, const char* what) {
    ++(ok ? passed : failed);
    if (!ok) printf("FAILED %s\n", what);
}

const Transform kNormal = {Kind::kNormal, {0.0, 1.0}, {}};

// The same jobs on memory of the CPU and of the "device".
struct Both {
    std::vector<FillJob> cpu, gpu;
    std::vector<std::vector<char>> memory;

    void add(Storage storage, std::vector<Dim> dims) {
        int64_t last = 0;
        for (const Dim& dim : dims) last += (dim.size - 1) * dim.stride;
        const Draw draw = {7, cpu.size()};
        for (std::vector<FillJob>* jobs : {&cpu, &gpu}) {
            memory.emplace_back(size_t(last + 1) * size_t(item_size(storage)), char(0x5A));
            FillJob job = {memory.back().data(), storage, kNormal, draw, 3, int(dims.size()), {}};
            std::copy(dims.begin(), dims.end(), job.dims);
            jobs->push_back(job);
        }
    }

    std::string run(int device, bool far = false, Combine how = {}) {
        runtime.launches.clear();
        const std::vector<CudaPart> parts = make_parts(gpu, how.mode);
        std::vector<CudaJob> rows;
        for (const CudaPart& part : parts) rows.insert(rows.end(), part.jobs.begin(), part.jobs.end());
        return launch(parts, far ? reinterpret_cast<uintptr_t>(rows.data()) : 0, device, 99, how);
    }

    bool equal(Combine how = {}) {
        const CpuFill fill(cpu, how);
        fill.run(0, fill.tiles(), 1);
        for (size_t i = 0; i < memory.size(); i += 2)
            if (memory[i] != memory[i + 1]) return false;
        return true;
    }
};

std::vector<Dim> run_of(int64_t n) { return {{n, 1, 1}}; }

// 7 dimensions, one more than the kernel takes, none of which collapse: as many rows as the first has indices.
std::vector<Dim> seven(int64_t first) {
    std::vector<Dim> dims = {{first, 1, 64}};
    for (int d = 0; d < 6; ++d) dims.push_back({2, first << d, 32 >> d});
    return dims;
}

void check_mixed_dtypes() {
    for (const bool far : {false, true}) {
        Both both;
        both.add(Storage::kFloat32, run_of(1000));
        both.add(Storage::kBFloat16, run_of(70000));
        both.add(Storage::kFloat64, run_of(33));
        both.add(Storage::kFloat8E4M3, run_of(5));
        both.add(Storage::kFloat32, run_of(20000));
        both.add(Storage::kFloat16, run_of(9));
        expect(both.run(1, far).empty() && both.equal(), "mixed dtypes: the values");
        expect(runtime.launches.size() == 4, "mixed dtypes: a launch for each size");
        for (const Launch& l : runtime.launches)
            expect(l.device == 1 && l.stream == reinterpret_cast<cudaStream_t>(99) && l.far == far, "mixed dtypes: where");
        expect(runtime.launches[0].jobs == 2 && runtime.launches[1].jobs == 2, "mixed dtypes: jobs of one size are together");
    }
    expect(runtime.loads.size() == 4, "each kernel is loaded once");
}

void check_first_use_in_a_capture() {
    runtime.capturing = true;
    Both both;
    both.add(Storage::kFloat32, run_of(100));
    expect(both.run(0).empty() && both.equal(), "the first use may be inside a capture");
    const Combine how = {Mode::kLerp, 0.25};
    expect(both.run(0, false, how).empty() && both.equal(how), "so may that of the kernel that combines");
    expect(runtime.mode == cudaStreamCaptureModeGlobal, "the thread's mode is as it was");
    runtime.capturing = false;
}

// In a capture, memory of a table would have to outlive the graph: rows travel in the launches, however many there are.
void check_many_rows_without_memory() {
    for (const int jobs : {1, 2, 5, 12, 13, 40}) {
        Both both;
        for (int i = 0; i < jobs; ++i) both.add(Storage::kFloat32, i % 2 ? run_of(70000 - i) : seven(i % 4 ? 3 : 30));
        expect(both.run(0).empty() && both.equal(), "many rows: the values");
        uint32_t rows = 0;
        for (const Launch& l : runtime.launches) {
            expect(!l.far && l.jobs <= uint32_t(kInlineJobs), "many rows: each launch carries its own");
            rows += l.jobs;
        }
        expect(runtime.launches.size() == (rows + kInlineJobs - 1) / kInlineJobs && rows > uint32_t(jobs),
               "many rows: full launches");
        expect(both.run(0, true).empty() && runtime.launches.size() == 1, "many rows: one launch where there is memory");
    }
}

// All blocks of a launch are on the GPU from its begin to its end: as many as fit, or a multiple, with shares of the same length.
void check_shares() {
    const uint32_t resident = 132 * uint32_t(kResidentBlocks);
    for (const uint64_t tiles :
         {1ull, 5ull, 527ull, 528ull, 529ull, 1000ull, 32768ull, 131072ull, 4000000ull, (1ull << 32) - 1}) {
        const uint32_t blocks = blocks_of(uint32_t(tiles), resident);
        expect(blocks == tiles || (tiles > resident && blocks % resident == 0), "shares: whole waves");
        CudaTable table = {};
        table.tiles = uint32_t(tiles);
        share_among(table, blocks);
        expect(uint64_t(table.share) * blocks + table.longer == tiles && table.longer < blocks, "shares: all tiles");
        expect(table.share + (table.longer > 0) <= kShareTiles, "shares: not too long");
    }
    const uint32_t tiles = (1u << 26) / (kTileGroups * 4),
                   blocks = blocks_of(tiles, resident);  // 2^26 float32 values on an H200
    const double longest = double((tiles + blocks - 1) / blocks) * blocks / tiles;
    expect(blocks == 2 * resident && longest < 1.04, "shares: 2^26 values");
}

// Number i of the blocks or groups of a region, as the kernels find it, by ordinary division: global index of its first element.
uint64_t first_of(const CudaJob& job, uint64_t i, uint64_t* bytes) {
    uint64_t index = job.index;
    *bytes = 0;
    for (int d = 0; d < job.outer; ++d) {
        const GridDim& dim = job.dims[d];
        const uint64_t at = i % dim.size;
        const uint32_t n = uint32_t(i), by_factor = uint32_t(((uint64_t(n) * dim.factor >> 32) + n) >> job.shifts[d]);
        expect(by_factor == i / dim.size, "regions: division by multiplication");
        index += at * dim.step;
        *bytes += at * dim.bytes;
        i /= dim.size;
    }
    return index;
}

// Regions too large for one job: cut into several, each within the limits, that have all elements. No memory is touched.
void check_large_regions() {
    const int64_t much = int64_t(3) << 31;
    const std::vector<std::vector<Dim>> shapes = {
        {{much, 2, 1}},                                // one strided run
        {{70000, 40000, 50001}, {40000, 1, 1}},        // rows; more than 2^31 blocks of bytes
        {{40000, 1, 70001}, {70001, 40000, 1}},        // transposed, the rows of odd length
        {{9, 1 << 20, int64_t(3) << 34}, {64, 1, 1}},  // rows far apart
        {{1 << 14, 3 << 20, 1 << 20}, {3, 1, 1}},      // far apart in memory
    };
    for (const std::vector<Dim>& dims : shapes) {
        FillJob job = {
            reinterpret_cast<char*>(uintptr_t(1) << 44), Storage::kFloat32, kNormal, {7, 8}, 12, int(dims.size()), {}};
        std::copy(dims.begin(), dims.end(), job.dims);
        uint64_t elements = 1, made = 0;
        for (const Dim& dim : dims) elements *= uint64_t(dim.size);
        const std::vector<CudaPart> parts = make_parts({job}, Mode::kStore);
        expect(parts.size() == 1 && parts[0].jobs.size() > 1 && parts[0].jobs.size() <= 128, "large regions: a few jobs");
        for (const CudaJob& one : parts[0].jobs) {
            if (one.layout == Layout::kAligned || one.layout == Layout::kLinear) {  // of a single row
                made += one.count;
                continue;
            }
            uint64_t bytes = 0, runs = 1;
            for (int d = 0; d < one.outer; ++d) runs *= d == one.block_dim ? 1 : one.dims[d].size;
            made += runs * one.run;
            expect(one.layout == Layout::kGroups || one.layout == Layout::kRows, "large regions: the layout");
            expect(one.count >> 31 == 0 && one.run >> 31 == 0, "large regions: within 31 bits");
            for (const uint64_t i : {uint64_t(0), one.count / 2, one.count - 1}) {
                const uint64_t index = first_of(one, i, &bytes);
                expect(index / 4 >> 32 == one.index / 4 >> 32 && index - one.index < uint64_t(1) << 32,
                       "large regions: one span");
                expect(bytes >> 31 == 0, "large regions: within 2^31 bytes");
            }
        }
        expect(made == elements, "large regions: all elements");
    }
}

void check_a_device_without_code() {
    const std::string why = why_not_on(kUnknownDevice);
    expect(why.find("cudaErrorNoKernelImageForDevice: in words") == 0, "no code: CUDA's words");
    expect(why.find("compute capability 9.3") != std::string::npos, "no code: the device");
    expect(why.find("compiled for " WEIGHTINIT_ARCHITECTURES) != std::string::npos, "no code: the build");
    const size_t asked = runtime.loads.size();
    Both both;
    both.add(Storage::kFloat32, run_of(10));
    expect(both.run(kUnknownDevice) == why && runtime.launches.empty(), "no code: nothing is launched");
    expect(runtime.loads.size() == asked, "no code: the device is asked once");
    expect(why_not_on(0).empty(), "another device is none the worse");
    expect(!why_not_on(kDevices).empty() && !both.run(kDevices).empty(), "no such device");
}

}  // namespace

int main() {
    select_isa("scalar");
    check_mixed_dtypes();
    check_first_use_in_a_capture();
    check_many_rows_without_memory();
    check_shares();
    check_large_regions();
    check_a_device_without_code();
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
