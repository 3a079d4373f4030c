// What the device code needs of CUDA, for g++: the indices of a thread, and the instructions that it names. Include it first.
#pragma once
#include <cstdint>
#include <cstring>

#define WI_EMULATED
#define WI_DEVICE
#define WI_ISA emulated
#define WI_GRID_CONSTANT

struct ThreadIndex {
    uint32_t x;
};
inline ThreadIndex threadIdx, blockIdx, gridDim;

inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline double __dsqrt_rn(double a) { return __builtin_sqrt(a); }
inline double __ddiv_rn(double a, double b) { return a / b; }

// The approximate instructions: the exactly rounded result, or so many units in the last place from it.
inline int seed_error = 0;
inline float off_by_seed_error(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits += uint32_t(seed_error);
    memcpy(&x, &bits, 4);
    return x;
}
inline float gpu_rsqrt_approx(float x) { return off_by_seed_error(float(1.0 / __builtin_sqrt(double(x)))); }
inline float gpu_rcp_approx(float x) { return off_by_seed_error(1.0f / x); }
