// The CUDA runtime that csrc/cuda/launch.cpp uses, of which nothing takes time: what remains is the host's part of a fill on a GPU.
#include <cuda_runtime_api.h>

#include "cpu/dispatch.h"
#include "cpu/kernels.h"

namespace wi {
RunFn find_run_avx2(Kind, Storage) { return nullptr; }
RunFn find_run_avx512(Kind, Storage) { return nullptr; }
CombineFn find_combine_avx2(Mode, Storage) { return nullptr; }
CombineFn find_combine_avx512(Mode, Storage) { return nullptr; }
StoreColumnsFn find_store_columns_avx2(int) { return nullptr; }
StoreColumnsFn find_store_columns_avx512(int) { return nullptr; }
RunFn find_run_neon(Kind, Storage) { return nullptr; }
RunFn find_bfloat16_avx512bf16(Kind) { return nullptr; }
CombineFn find_combine_neon(Mode, Storage) { return nullptr; }

namespace { const char functions[5] = {}; }
const void* fill_kernel_8bit() { return functions; }
const void* fill_kernel_16bit() { return functions + 1; }
const void* fill_kernel_32bit() { return functions + 2; }
const void* fill_kernel_64bit() { return functions + 3; }
const void* combine_kernel() { return functions + 4; }
}  // namespace wi

const char* cudaGetErrorName(cudaError_t) { return ""; }
const char* cudaGetErrorString(cudaError_t) { return ""; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) { return *value = 132, cudaSuccess; }
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int, size_t) {
    return *blocks = 4, cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*) { return cudaSuccess; }
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, const void*) { return cudaSuccess; }
cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t) { return cudaSuccess; }
