// The GPU evaluator: the core compiled for the device, and its launch. This file and combine_cuda.cu know the CUDA runtime.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "fill_cuda.h"

#define WI_ISA cuda
#define WI_DEVICE
#define WI_GRID_CONSTANT __grid_constant__
#include "fill_kernel.h"

namespace wi {

std::string cuda_message(int number) {
    const cudaError_t error = cudaError_t(number);
    return error == cudaSuccess ? std::string() : std::string(cudaGetErrorName(error)) + ": " + cudaGetErrorString(error);
}

std::string launch_fill(const std::vector<CudaJob>& table, uint64_t far, uint32_t tiles, uint64_t stream) {
    if (tiles == 0) return {};
    CudaTable parameters;
    memset(static_cast<void*>(&parameters), 0, sizeof parameters);
    parameters.far = reinterpret_cast<const CudaJob*>(far);
    parameters.jobs = uint32_t(table.size());
    parameters.tiles = tiles;
    if (!far) std::copy(table.begin(), table.end(), parameters.here);
    const uint32_t grid = std::min(tiles, uint32_t(1) << 20);  // values do not depend on it; a block strides over the rest
    cuda::fill_kernel<<<grid, kThreads, 0, reinterpret_cast<cudaStream_t>(stream)>>>(parameters);
    return cuda_message(int(cudaGetLastError()));
}

int cuda_devices(std::string& why) {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    why = cuda_message(int(error));
    return error == cudaSuccess ? count : 0;
}

}  // namespace wi
