// What fill_kernel.h needs of CUDA, for g++: the indices of a thread, and the exactly rounded operations. The approximate
// instructions are emulated_gpu.cpp's. Include before fill_kernel.h.
#pragma once
#include <cstdint>
#include <cstring>

#define WI_EMULATED
#define WI_DEVICE
#define WI_ISA emulated
#define WI_GRID_CONSTANT

extern "C" {
float gpu_rsqrt_approx(float x);
float gpu_rcp_approx(float x);
}

struct ThreadIndex {
    uint32_t x;
};
static ThreadIndex threadIdx, blockIdx, gridDim;

inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dsqrt_rn(double a) { return __builtin_sqrt(a); }
inline double __ddiv_rn(double a, double b) { return a / b; }
