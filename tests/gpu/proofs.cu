// The device's own square root and division against nvcc's exactly rounded ones, for every float of a range. Compiled and called
// by test_gpu_proofs.py with the flags of the build.
#include <cuda_runtime.h>

#include <cstdint>

#define WI_ISA proofs
#define WI_DEVICE
#include "core/math.h"

namespace wi {
namespace proofs {

struct SquareRoot {
    __device__ static bool wrong(float x) { return as_bits(sqrt(x)) != as_bits(__fsqrt_rn(x)); }
};

__device__ bool quotient_wrong(float a, float b) { return as_bits(divide(a, b)) != as_bits(__fdiv_rn(a, b)); }

struct CentralQuotient {  // as quantile_central_32 asks for it
    __device__ static bool wrong(float x) {
        using namespace coefficients::f32;
        const float v = __fmaf_rn(-x, x, float(coefficients::kCentralX2));
        return quotient_wrong(horner32<kQuantileCentralP>(v), horner32<kQuantileCentralQ>(v));
    }
};

struct TailQuotient {  // as quantile_tail_32 asks for it
    __device__ static bool wrong(float r) {
        using namespace coefficients::f32;
        const float t = r - float(kQuantileTailR0);
        return quotient_wrong(horner32<kQuantileTailP>(t), horner32<kQuantileTailQ>(t));
    }
};

// The bit patterns [begin, end). counts: how many are wrong, how many were looked at.
template <class Claim>
__global__ void prove(uint64_t begin, uint64_t end, unsigned long long* counts) {
    unsigned long long wrong = 0, seen = 0;
    for (uint64_t i = begin + blockIdx.x * uint64_t(blockDim.x) + threadIdx.x; i < end; i += uint64_t(gridDim.x) * blockDim.x) {
        wrong += Claim::wrong(as_float(uint32_t(i)));
        ++seen;
    }
    atomicAdd(counts, wrong);
    atomicAdd(counts + 1, seen);
}

}  // namespace proofs
}  // namespace wi

// counts: 2 numbers in device memory. Returns a CUDA error; the work is done when it returns.
extern "C" __attribute__((visibility("default"))) int run_proof(int claim, uint64_t begin, uint64_t end, unsigned long long* counts) {
    namespace p = wi::proofs;
    switch (claim) {
        case 0: p::prove<p::SquareRoot><<<4096, 256>>>(begin, end, counts); break;
        case 1: p::prove<p::CentralQuotient><<<4096, 256>>>(begin, end, counts); break;
        case 2: p::prove<p::TailQuotient><<<4096, 256>>>(begin, end, counts); break;
        default: return int(cudaErrorInvalidValue);
    }
    const cudaError_t launched = cudaGetLastError();
    return int(launched != cudaSuccess ? launched : cudaDeviceSynchronize());
}
