// The launch of the kernel that combines, beside that of the one that fills: a translation unit and a kernel of its own.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "fill_cuda.h"

#define WI_ISA cuda
#define WI_DEVICE
#define WI_GRID_CONSTANT __grid_constant__
#define WI_NO_KERNEL  // of fills
#include "combine_kernel.h"

namespace wi {

std::string launch_combine(const std::vector<CudaJob>& table, uint64_t far, uint32_t tiles, uint64_t stream, Combine how) {
    if (tiles == 0) return {};
    cuda::CombineTable parameters;
    memset(static_cast<void*>(&parameters), 0, sizeof parameters);
    parameters.table.far = reinterpret_cast<const CudaJob*>(far);
    parameters.table.jobs = uint32_t(table.size());
    parameters.table.tiles = tiles;
    parameters.how = how;
    if (!far) std::copy(table.begin(), table.end(), parameters.table.here);
    const uint32_t grid = std::min(tiles, uint32_t(1) << 20);
    cuda::combine_kernel<<<grid, kThreads, 0, reinterpret_cast<cudaStream_t>(stream)>>>(parameters);
    return cuda_message(int(cudaGetLastError()));
}

}  // namespace wi
