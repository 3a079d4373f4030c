// Lane operations on 4 x 32 bits (2 x 64) with AArch64 Advanced SIMD. Lanes hold blocks in natural order.
#pragma once
#include "lanes_scalar.h"

namespace wi {
namespace WI_ISA {

struct U4 {
    uint32x4_t v;
    U4() = default;
    WI_MEMBER U4(uint32x4_t a) : v(a) {}
    WI_MEMBER explicit U4(uint32_t a) : v(vdupq_n_u32(a)) {}
};
struct F4 {
    float32x4_t v;
    F4() = default;
    WI_MEMBER F4(float32x4_t a) : v(a) {}
    WI_MEMBER explicit F4(float a) : v(vdupq_n_f32(a)) {}
};
struct Q2 {
    uint64x2_t v;
    Q2() = default;
    WI_MEMBER Q2(uint64x2_t a) : v(a) {}
    WI_MEMBER explicit Q2(uint64_t a) : v(vdupq_n_u64(a)) {}
};
struct D2 {
    float64x2_t v;
    D2() = default;
    WI_MEMBER D2(float64x2_t a) : v(a) {}
    WI_MEMBER explicit D2(double a) : v(vdupq_n_f64(a)) {}
};

WI_FN U4 operator+(U4 a, U4 b) { return vaddq_u32(a.v, b.v); }
WI_FN U4 operator-(U4 a, U4 b) { return vsubq_u32(a.v, b.v); }
WI_FN U4 operator&(U4 a, U4 b) { return vandq_u32(a.v, b.v); }
WI_FN U4 operator|(U4 a, U4 b) { return vorrq_u32(a.v, b.v); }
WI_FN U4 operator^(U4 a, U4 b) { return veorq_u32(a.v, b.v); }
WI_FN U4 operator<<(U4 a, int n) { return vshlq_u32(a.v, vdupq_n_s32(n)); }
WI_FN U4 operator>>(U4 a, int n) { return vshlq_u32(a.v, vdupq_n_s32(-n)); }
WI_FN Q2 operator+(Q2 a, Q2 b) { return vaddq_u64(a.v, b.v); }
WI_FN Q2 operator-(Q2 a, Q2 b) { return vsubq_u64(a.v, b.v); }
WI_FN Q2 operator&(Q2 a, Q2 b) { return vandq_u64(a.v, b.v); }
WI_FN Q2 operator|(Q2 a, Q2 b) { return vorrq_u64(a.v, b.v); }
WI_FN Q2 operator^(Q2 a, Q2 b) { return veorq_u64(a.v, b.v); }
WI_FN Q2 operator<<(Q2 a, int n) { return vshlq_u64(a.v, vdupq_n_s64(n)); }
WI_FN Q2 operator>>(Q2 a, int n) { return vshlq_u64(a.v, vdupq_n_s64(-n)); }
WI_FN F4 operator+(F4 a, F4 b) { return vaddq_f32(a.v, b.v); }
WI_FN F4 operator-(F4 a, F4 b) { return vsubq_f32(a.v, b.v); }
WI_FN F4 operator*(F4 a, F4 b) { return vmulq_f32(a.v, b.v); }
WI_FN F4 divide(F4 a, F4 b) { return vdivq_f32(a.v, b.v); }
WI_FN D2 operator+(D2 a, D2 b) { return vaddq_f64(a.v, b.v); }
WI_FN D2 operator-(D2 a, D2 b) { return vsubq_f64(a.v, b.v); }
WI_FN D2 operator*(D2 a, D2 b) { return vmulq_f64(a.v, b.v); }
WI_FN D2 divide(D2 a, D2 b) { return vdivq_f64(a.v, b.v); }
WI_FN F4 fma(F4 a, F4 b, F4 c) { return vfmaq_f32(c.v, a.v, b.v); }
WI_FN F4 sqrt(F4 a) { return vsqrtq_f32(a.v); }
WI_FN D2 sqrt(D2 a) { return vsqrtq_f64(a.v); }
WI_FN F4 min(F4 a, F4 b) { return vbslq_f32(vcltq_f32(b.v, a.v), b.v, a.v); }
WI_FN F4 max(F4 a, F4 b) { return vbslq_f32(vcgtq_f32(b.v, a.v), b.v, a.v); }
WI_FN D2 min(D2 a, D2 b) { return vbslq_f64(vcltq_f64(b.v, a.v), b.v, a.v); }
WI_FN D2 max(D2 a, D2 b) { return vbslq_f64(vcgtq_f64(b.v, a.v), b.v, a.v); }
WI_FN F4 to_float(U4 a) { return vcvtq_f32_s32(vreinterpretq_s32_u32(a.v)); }
WI_FN F4 as_float(U4 a) { return vreinterpretq_f32_u32(a.v); }
WI_FN U4 as_bits(F4 a) { return vreinterpretq_u32_f32(a.v); }
WI_FN D2 as_float(Q2 a) { return vreinterpretq_f64_u64(a.v); }
WI_FN Q2 as_bits(D2 a) { return vreinterpretq_u64_f64(a.v); }
WI_FN U4 less(U4 a, U4 b) { return vcltq_u32(a.v, b.v); }
WI_FN Q2 less(Q2 a, Q2 b) { return vcltq_u64(a.v, b.v); }
WI_FN U4 select(U4 mask, U4 a, U4 b) { return vbslq_u32(mask.v, a.v, b.v); }
WI_FN F4 select(U4 mask, F4 a, F4 b) { return vbslq_f32(mask.v, a.v, b.v); }
WI_FN Q2 select(Q2 mask, Q2 a, Q2 b) { return vbslq_u64(mask.v, a.v, b.v); }
WI_FN D2 select(Q2 mask, D2 a, D2 b) { return vbslq_f64(mask.v, a.v, b.v); }
WI_FN HiLo<U4> mul_hi_lo(U4 a, uint32_t m) {
    const uint64x2_t low = vmull_n_u32(vget_low_u32(a.v), m), high = vmull_high_n_u32(a.v, m);
    return {vuzp2q_u32(vreinterpretq_u32_u64(low), vreinterpretq_u32_u64(high)), vmulq_n_u32(a.v, m)};
}

struct Neon {
    using U = U4;
    using F = F4;
    using Q = Q2;
    using D = D2;
    static constexpr int kBlocks = 4;
    static constexpr int kWides = 2;
    static constexpr int kVectorBytes = 16;
    static constexpr bool kRoundsToBFloat16 = false;
    static constexpr bool kPairs = false;
    WI_FN U lane_blocks() {
        const uint32_t order[4] = {0, 1, 2, 3};
        return vld1q_u32(order);
    }
    WI_FN void interleave4(const U x[4], U y[4]) {
        const uint64x2_t a = vreinterpretq_u64_u32(vzip1q_u32(x[0].v, x[1].v)),
                         b = vreinterpretq_u64_u32(vzip2q_u32(x[0].v, x[1].v));
        const uint64x2_t c = vreinterpretq_u64_u32(vzip1q_u32(x[2].v, x[3].v)),
                         d = vreinterpretq_u64_u32(vzip2q_u32(x[2].v, x[3].v));
        y[0] = vreinterpretq_u32_u64(vzip1q_u64(a, c));
        y[1] = vreinterpretq_u32_u64(vzip2q_u64(a, c));
        y[2] = vreinterpretq_u32_u64(vzip1q_u64(b, d));
        y[3] = vreinterpretq_u32_u64(vzip2q_u64(b, d));
    }
    WI_FN void interleave4(const F x[4], F y[4]) {
        U u[4], w[4];
        for (int i = 0; i < 4; ++i) u[i] = as_bits(x[i]);
        interleave4(u, w);
        for (int i = 0; i < 4; ++i) y[i] = as_float(w[i]);
    }
    WI_FN void widen(U hi, U lo, Q q[2]) {
        q[0] = vreinterpretq_u64_u32(vzip1q_u32(lo.v, hi.v));
        q[1] = vreinterpretq_u64_u32(vzip2q_u32(lo.v, hi.v));
    }
    WI_FN void interleave2(D a, D b, D y[2]) {
        y[0] = vzip1q_f64(a.v, b.v);
        y[1] = vzip2q_f64(a.v, b.v);
    }
    WI_FN void store(float* out, F x) { vst1q_f32(out, x.v); }
    WI_FN void store(uint32_t* out, U x) { vst1q_u32(out, x.v); }
    WI_FN void store(double* out, D x) { vst1q_f64(out, x.v); }
    WI_FN F load(const float* in) { return vld1q_f32(in); }
    WI_FN D load(const double* in) { return vld1q_f64(in); }
    WI_FN void load16(const uint16_t* in, U x[4]) {
        for (int i = 0; i < 4; ++i) x[i] = vmovl_u16(vld1_u16(in + 4 * i));
    }
    WI_FN void load8(const uint8_t* in, U x[4]) {
        const uint8x16_t bytes = vld1q_u8(in);
        const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
        x[0] = vmovl_u16(vget_low_u16(low));
        x[1] = vmovl_high_u16(low);
        x[2] = vmovl_u16(vget_low_u16(high));
        x[3] = vmovl_high_u16(high);
    }
    template <class V>
    WI_FN void store_past_caches(void* to, V x) {
        memcpy(to, &x, sizeof x);
    }
    WI_FN uint16x8_t narrow(U a, U b) { return vmovn_high_u32(vmovn_u32(a.v), b.v); }
    WI_FN void store16(uint16_t* out, const U x[4]) {
        vst1q_u16(out, narrow(x[0], x[1]));
        vst1q_u16(out + 8, narrow(x[2], x[3]));
    }
    WI_FN void store8(uint8_t* out, const U x[4]) {
        vst1q_u8(out, vmovn_high_u16(vmovn_u16(narrow(x[0], x[1])), narrow(x[2], x[3])));
    }
    WI_FN U to_float16(F x) { return vmovl_u16(vreinterpret_u16_f16(vcvt_f16_f32(x.v))); }
};

}  // namespace WI_ISA
}  // namespace wi
