// The operations of the scalar lane that the GPU does in its own way: the same results, in fewer instructions. Included by
// lanes_scalar.h when it is compiled for the device (or for its emulation on the CPU).
// The arguments of sqrt and divide are normal, far from overflow: sqrt in [1e-30, 2^25], quotients of polynomials of moderate
// size. So the range checks and slow paths that nvcc puts around them are left out, and .ftz (one instruction less) is no matter.
#pragma once

WI_FN uint64_t mul_wide(uint32_t a, uint32_t m) {
#if defined(__CUDA_ARCH__)  // nvcc 13.0 takes uint64_t(a) * m for a product of 64-bit numbers and adds 0 to its high half
    uint64_t product;
    asm("mul.wide.u32 %0, %1, %2;" : "=l"(product) : "r"(a), "r"(m));
    return product;
#else
    return uint64_t(a) * m;
#endif
}

// One instruction instead of a comparison and a selection. It takes -0 for less than +0: no matter to min, since b is not -0,
// but to max, where a = -0 and b = +0 must give a.
#if defined(__CUDA_ARCH__)
WI_FN float min(float a, float b) {
    float r;
    asm("min.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}
WI_FN float max_without_minus_zero(float a, float b) {
    float r;
    asm("max.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
    return r;
}
#else
WI_FN float min(float a, float b) { return b < a ? b : a; }
WI_FN float max_without_minus_zero(float a, float b) { return b > a ? b : a; }
#endif

WI_FN float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }

WI_FN float subtract_product(float c, float a, float b) { return fma(-a, b, c); }

WI_FN float rsqrt_seed(float x) {
    float r;
#if defined(WI_EMULATED)
    r = gpu_rsqrt_approx(x);
#else
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
#endif
    return r;
}

WI_FN float reciprocal_seed(float x) {
    float r;
#if defined(WI_EMULATED)
    r = gpu_rcp_approx(x);
#else
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
#endif
    return r;
}

// What nvcc itself makes of sqrt.rn from 2^-101 on, for every architecture (tests/cuda/test_sass.py). Exactness rests on a seed better
// than the documented 2^-22.9, for nvcc as for us; the GPU tests prove it over all inputs.
WI_FN float sqrt(float x) {
    const float r = rsqrt_seed(x);
    const float g = __fmul_rn(x, r), h = __fmul_rn(r, 0.5f);
    return fma(fma(-g, g, x), h, g);
}

// Markstein 1990. Exact for every quotient that the quantiles can ask for, with any seed within 2 units in the last place
// (documented: 1); nvcc repeats the last step for the sake of all others. tests/native proves it over all arguments.
WI_FN float divide(float a, float b) {
    const float seed = reciprocal_seed(b);
    const float r = fma(fma(-b, seed, 1.0f), seed, seed);
    const float q = __fmul_rn(a, r);
    return fma(fma(-b, q, a), r, q);
}

// grid_value(k, grid_scale(s), low) = fma(k, s, low) for integers k < 2^24 and s < kGridScaleLimit. The bits of k, read as a
// float, are k 2^-149: subnormal numbers and those of the next exponent have one spacing. So k needs no conversion.
WI_FN float grid_scale(float scale) {
    return __fmul_rn(__fmul_rn(scale, 0x1p75f), 0x1p74f);
}
WI_FN float grid_value(uint32_t k, float scale, float low) { return fma(as_float(k), scale, low); }

WI_FN double sqrt(double x) { return __dsqrt_rn(x); }
WI_FN double divide(double a, double b) { return __ddiv_rn(a, b); }
