// The float operations of the scalar lane on the GPU: exactly rounded, without the range checks and slow paths that nvcc puts
// around sqrt and division. Included by lanes_scalar.h when it is compiled for the device (or for its emulation on the CPU).
// The arguments of this library are normal, far from overflow: sqrt in [1e-30, 2^25], quotients of polynomials of moderate size.
// Each sequence is the one nvcc itself uses inside its range check (Markstein 1990); tests/gpu proves it over all inputs.
#pragma once

WI_FN float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }

WI_FN float rsqrt_seed(float x) {
    float r;
#if defined(WI_EMULATED)
    r = gpu_rsqrt_approx(x);
#else
    asm("rsqrt.approx.f32 %0, %1;" : "=f"(r) : "f"(x));
#endif
    return r;
}

WI_FN float reciprocal_seed(float x) {
    float r;
#if defined(WI_EMULATED)
    r = gpu_rcp_approx(x);
#else
    asm("rcp.approx.f32 %0, %1;" : "=f"(r) : "f"(x));
#endif
    return r;
}

WI_FN float sqrt(float x) {
    const float r = rsqrt_seed(x);
    const float g = __fmul_rn(x, r), h = __fmul_rn(r, 0.5f);
    return fma(fma(-g, g, x), h, g);
}

WI_FN float divide(float a, float b) {
    const float seed = reciprocal_seed(b);
    const float r = fma(fma(-b, seed, 1.0f), seed, seed);
    const float q = __fmul_rn(a, r);
    const float better = fma(fma(-b, q, a), r, q);
    return fma(fma(-b, better, a), r, better);
}

WI_FN double sqrt(double x) { return __dsqrt_rn(x); }
WI_FN double divide(double a, double b) { return __ddiv_rn(a, b); }
