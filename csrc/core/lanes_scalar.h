// The scalar lane type: one block at a time. The portable CPU backend and every CUDA thread run the core with it, and it
// defines the vocabulary of lane operations that the other lanes_*.h repeat for their vectors.
// Float operations are single IEEE-754 operations, round to nearest even; nothing here may be contracted or approximate.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define WI_FN static __device__ __forceinline__
#define WI_MEMBER __device__ __forceinline__
#else
#define WI_FN static inline __attribute__((always_inline))
#define WI_MEMBER inline __attribute__((always_inline))
#endif

#if defined(__clang__) || defined(__CUDACC__)
#define WI_UNROLL _Pragma("unroll")
#else
#define WI_UNROLL _Pragma("GCC unroll 16")
#endif

#ifndef WI_ISA
#define WI_ISA scalar
#endif

namespace wi {
namespace WI_ISA {

template <class V>
struct HiLo {
    V hi, lo;
};

template <class To, class From>
WI_FN To bit_cast_scalar(From from) {
    To to;
    static_assert(sizeof to == sizeof from, "bit_cast_scalar keeps the size");
    memcpy(&to, &from, sizeof to);
    return to;
}

WI_FN float to_float(uint32_t a) { return float(int32_t(a)); }  // as a signed integer
WI_FN float as_float(uint32_t a) { return bit_cast_scalar<float>(a); }
WI_FN uint32_t as_bits(float a) { return bit_cast_scalar<uint32_t>(a); }
WI_FN double as_float(uint64_t a) { return bit_cast_scalar<double>(a); }
WI_FN uint64_t as_bits(double a) { return bit_cast_scalar<uint64_t>(a); }
WI_FN uint32_t less(uint32_t a, uint32_t b) { return a < b ? ~uint32_t(0) : 0; }  // a mask
WI_FN uint64_t less(uint64_t a, uint64_t b) { return a < b ? ~uint64_t(0) : 0; }
WI_FN uint32_t select(uint32_t mask, uint32_t a, uint32_t b) { return (mask & a) | (~mask & b); }
WI_FN float select(uint32_t mask, float a, float b) { return mask ? a : b; }
WI_FN double select(uint64_t mask, double a, double b) { return mask ? a : b; }
WI_FN float max(float a, float b) { return b > a ? b : a; }  // b is not -0, neither is NaN
WI_FN double min(double a, double b) { return b < a ? b : a; }
WI_FN double max(double a, double b) { return b > a ? b : a; }

#if defined(WI_DEVICE)
#include "scalar_device.h"
#else
WI_FN uint64_t mul_wide(uint32_t a, uint32_t m) { return uint64_t(a) * m; }
WI_FN float min(float a, float b) { return b < a ? b : a; }  // as max
#if defined(__FMA__) || defined(__aarch64__)
WI_FN float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
#else
// Without the instruction: the product is exact in double, the sum is rounded to odd, so the last rounding is the only one.
WI_FN float fma(float a, float b, float c) {
    const double p = double(a) * double(b), d = c;
    const double s = p + d, t = s - p;
    const double error = (p - (s - t)) + (d - t);  // exact (Knuth's TwoSum); NaN if s is infinite
    const uint64_t bits = as_bits(s), even = ~bits & 1;
    const uint64_t up = uint64_t(error > 0) ^ (bits >> 63), inexact = uint64_t(error > 0) | uint64_t(error < 0);
    return float(as_float(bits + (even & inexact) * (2 * up - 1)));
}
#endif
WI_FN float sqrt(float a) { return __builtin_sqrtf(a); }
WI_FN double sqrt(double a) { return __builtin_sqrt(a); }
WI_FN float divide(float a, float b) { return a / b; }
WI_FN double divide(double a, double b) { return a / b; }
#endif

WI_FN HiLo<uint32_t> mul_hi_lo(uint32_t a, uint32_t m) {
    const uint64_t product = mul_wide(a, m);
    return {uint32_t(product >> 32), uint32_t(product)};
}

struct Scalar {
    using U = uint32_t;  // a word of each block
    using F = float;     // a value of each block
    using Q = uint64_t;  // a 64-bit draw
    using D = double;
    static constexpr int kBlocks = 1;        // blocks a set: lanes of U
    static constexpr int kWides = 1;         // vectors of Q that hold as many lanes as one U
    static constexpr int kVectorBytes = 16;  // that are transposed together
    static constexpr bool kRoundsToBFloat16 = false;
    static constexpr bool kPairs =
        false;  // there are philox4x32_10_pairs and interleave_pairs: fewer operations than for planes
    WI_FN U lane_blocks() { return 0; }  // the block of each lane, within the set
    WI_FN void interleave4(const F x[4], F y[4]) {  // four planes -> memory order
        for (int i = 0; i < 4; ++i) y[i] = x[i];
    }
    WI_FN void interleave4(const U x[4], U y[4]) {
        for (int i = 0; i < 4; ++i) y[i] = x[i];
    }
    WI_FN void widen(U hi, U lo, Q q[1]) { q[0] = Q(hi) << 32 | lo; }
    WI_FN void interleave2(D a, D b, D y[2]) {
        y[0] = a;
        y[1] = b;
    }
    WI_FN void store(float* out, F x) { *out = x; }
    WI_FN void store(uint32_t* out, U x) { *out = x; }
    WI_FN void store(double* out, D x) { *out = x; }
    WI_FN F load(const float* in) { return *in; }
    WI_FN D load(const double* in) { return *in; }
    WI_FN void load16(const uint16_t* in, U x[4]) {  // of four vectors, to their low halves
        for (int i = 0; i < 4; ++i) x[i] = in[i];
    }
    WI_FN void load8(const uint8_t* in, U x[4]) {
        for (int i = 0; i < 4; ++i) x[i] = in[i];
    }
    template <class V>
    WI_FN void store_past_caches(void* to, V x) {  // to a multiple of its size, if there is such a store
        memcpy(to, &x, sizeof x);
    }
    WI_FN void store16(uint16_t* out, const U x[4]) {  // the low halves of four vectors
        for (int i = 0; i < 4; ++i) out[i] = uint16_t(x[i]);
    }
    WI_FN void store8(uint8_t* out, const U x[4]) {
        for (int i = 0; i < 4; ++i) out[i] = uint8_t(x[i]);
    }
};

}  // namespace WI_ISA
}  // namespace wi
