// Launches: the host's side of the CUDA backend. This file alone knows the CUDA runtime, which is linked statically: the module
// loads where there is no driver, and asks nothing of one before the first launch.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "fill_cuda.h"

namespace wi {

// Of each .cu file its kernel, as cudaLaunchKernel takes it.
const void* fill_kernel_8bit();
const void* fill_kernel_16bit();
const void* fill_kernel_32bit();
const void* fill_kernel_64bit();
const void* combine_kernel();

namespace {

const void* function_of(Kernel kernel) {
    switch (kernel) {
        case Kernel::kFill8: return fill_kernel_8bit();
        case Kernel::kFill16: return fill_kernel_16bit();
        case Kernel::kFill32: return fill_kernel_32bit();
        case Kernel::kFill64: return fill_kernel_64bit();
        default: return combine_kernel();
    }
}

// Empty for success.
std::string message(cudaError_t error) {
    return error == cudaSuccess ? std::string() : std::string(cudaGetErrorName(error)) + ": " + cudaGetErrorString(error);
}

std::string capability_of(int device) {
    int major = 0, minor = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    return std::to_string(major) + "." + std::to_string(minor);
}

// Loads the kernel onto the current device. CUDA would do that at the first launch; but a launch may be captured into a graph, and
// while that lasts, loading is forbidden unless this thread says that it may.
std::string load(Kernel kernel, int device) {
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    cudaThreadExchangeStreamCaptureMode(&mode);
    cudaFuncAttributes attributes;
    const cudaError_t error = cudaFuncGetAttributes(&attributes, function_of(kernel));
    cudaThreadExchangeStreamCaptureMode(&mode);
    if (error == cudaSuccess) return {};
    (void)cudaGetLastError();  // so that no later call reports it
    return message(error) + " (a device of compute capability " + capability_of(device) +
           "; compiled for " WEIGHTINIT_ARCHITECTURES ")";
}

// How many blocks of a kernel the current device can run at the same time.
uint32_t resident_blocks(Kernel kernel, int device) {
    int multiprocessors = 0, blocks = 0;
    cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
    cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function_of(kernel), kThreads, 0);
    return uint32_t(std::max(multiprocessors, 1)) * uint32_t(std::max(blocks, 1));
}

struct Loaded {
    std::string error;  // empty if there is none
    uint32_t resident;
};

// The same, once for each kernel and device. What it says is remembered, whether good or bad.
const Loaded& loaded(Kernel kernel, int device) {
    static std::mutex mutex;
    static std::map<std::pair<Kernel, int>, Loaded> known;  // whose elements stay where they are
    const std::lock_guard<std::mutex> lock(mutex);
    const auto place = known.find({kernel, device});
    if (place != known.end()) return place->second;
    const std::string error = load(kernel, device);
    return known[{kernel, device}] = {error, error.empty() ? resident_blocks(kernel, device) : 0};
}

// Jobs [begin, end) of a part, whose first tile is that of the first job.
std::string launch(const CudaPart& part, size_t begin, size_t end, uint32_t resident, uint64_t far, uint64_t stream,
                   const Combine& how) {
    CombineTable parameters;  // of which a kernel that fills takes the table alone
    memset(static_cast<void*>(&parameters), 0, sizeof parameters);
    CudaTable& table = parameters.table;
    const uint32_t first_tile = part.jobs[begin].first_tile;
    table.far = reinterpret_cast<const CudaJob*>(far);
    table.jobs = uint32_t(end - begin);
    table.tiles = (end < part.jobs.size() ? part.jobs[end].first_tile : part.tiles) - first_tile;
    for (size_t i = begin; !far && i < end; ++i) {
        table.here[i - begin] = part.jobs[i];
        table.here[i - begin].first_tile -= first_tile;
    }
    parameters.how = how;
    void* arguments[] = {&parameters};
    const uint32_t blocks = blocks_of(table.tiles, resident);  // values do not depend on it
    share_among(table, blocks);
    return message(cudaLaunchKernel(function_of(part.kernel), dim3(blocks), dim3(kThreads), arguments, 0,
                                    reinterpret_cast<cudaStream_t>(stream)));
}

std::string launch_part(const CudaPart& part, uint32_t resident, uint64_t far, uint64_t stream, const Combine& how) {
    if (far) return launch(part, 0, part.jobs.size(), resident, far, stream, how);
    for (size_t begin = 0; begin < part.jobs.size(); begin += kInlineJobs) {
        const size_t end = std::min(begin + kInlineJobs, part.jobs.size());
        const std::string error = launch(part, begin, end, resident, 0, stream, how);
        if (!error.empty()) return error;
    }
    return {};
}

// torch's guard may have left it to the next call of torch's own runtime to make the device's context current.
std::string use(int device) { return device < 0 ? std::string() : message(cudaSetDevice(device)); }

}  // namespace

std::string launch(const std::vector<CudaPart>& parts, uint64_t far, int device, uint64_t stream, const Combine& how) {
    std::string error = use(device);
    if (error.empty() && device < 0) error = message(cudaGetDevice(&device));
    for (size_t i = 0; error.empty() && i < parts.size(); ++i) {
        const Loaded& kernel = loaded(parts[i].kernel, device);
        error = kernel.error;
        if (error.empty()) error = launch_part(parts[i], kernel.resident, far, stream, how);
        if (far) far += parts[i].jobs.size() * sizeof(CudaJob);
    }
    return error;
}

std::string why_not_on(int device) {
    const std::string error = use(device);
    return error.empty() ? loaded(Kernel::kFill32, device).error : error;
}

}  // namespace wi
