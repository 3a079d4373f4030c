// Lane operations on 8 x 32 bits (4 x 64) with AVX2, FMA and F16C. Include inside the target region of fill_avx2.cpp.
// Lanes hold blocks in the order 0 2 4 6 | 1 3 5 7, so that unpacking within 128-bit halves restores memory order.
#pragma once
#include "lanes_scalar.h"

namespace wi {
namespace WI_ISA {

struct U8 {
    __m256i v;
    U8() = default;
    WI_MEMBER U8(__m256i a) : v(a) {}
    WI_MEMBER explicit U8(uint32_t a) : v(_mm256_set1_epi32(int(a))) {}
};
struct F8 {
    __m256 v;
    F8() = default;
    WI_MEMBER F8(__m256 a) : v(a) {}
    WI_MEMBER explicit F8(float a) : v(_mm256_set1_ps(a)) {}
};
struct Q4 {
    __m256i v;
    Q4() = default;
    WI_MEMBER Q4(__m256i a) : v(a) {}
    WI_MEMBER explicit Q4(uint64_t a) : v(_mm256_set1_epi64x((long long)a)) {}
};
struct D4 {
    __m256d v;
    D4() = default;
    WI_MEMBER D4(__m256d a) : v(a) {}
    WI_MEMBER explicit D4(double a) : v(_mm256_set1_pd(a)) {}
};

WI_FN U8 operator+(U8 a, U8 b) { return _mm256_add_epi32(a.v, b.v); }
WI_FN U8 operator-(U8 a, U8 b) { return _mm256_sub_epi32(a.v, b.v); }
WI_FN U8 operator&(U8 a, U8 b) { return _mm256_and_si256(a.v, b.v); }
WI_FN U8 operator|(U8 a, U8 b) { return _mm256_or_si256(a.v, b.v); }
WI_FN U8 operator^(U8 a, U8 b) { return _mm256_xor_si256(a.v, b.v); }
WI_FN U8 operator<<(U8 a, int n) { return _mm256_slli_epi32(a.v, n); }
WI_FN U8 operator>>(U8 a, int n) { return _mm256_srli_epi32(a.v, n); }
WI_FN Q4 operator+(Q4 a, Q4 b) { return _mm256_add_epi64(a.v, b.v); }
WI_FN Q4 operator-(Q4 a, Q4 b) { return _mm256_sub_epi64(a.v, b.v); }
WI_FN Q4 operator&(Q4 a, Q4 b) { return _mm256_and_si256(a.v, b.v); }
WI_FN Q4 operator|(Q4 a, Q4 b) { return _mm256_or_si256(a.v, b.v); }
WI_FN Q4 operator^(Q4 a, Q4 b) { return _mm256_xor_si256(a.v, b.v); }
WI_FN Q4 operator<<(Q4 a, int n) { return _mm256_slli_epi64(a.v, n); }
WI_FN Q4 operator>>(Q4 a, int n) { return _mm256_srli_epi64(a.v, n); }
WI_FN F8 operator+(F8 a, F8 b) { return _mm256_add_ps(a.v, b.v); }
WI_FN F8 operator-(F8 a, F8 b) { return _mm256_sub_ps(a.v, b.v); }
WI_FN F8 operator*(F8 a, F8 b) { return _mm256_mul_ps(a.v, b.v); }
WI_FN F8 divide(F8 a, F8 b) { return _mm256_div_ps(a.v, b.v); }
WI_FN D4 operator+(D4 a, D4 b) { return _mm256_add_pd(a.v, b.v); }
WI_FN D4 operator-(D4 a, D4 b) { return _mm256_sub_pd(a.v, b.v); }
WI_FN D4 operator*(D4 a, D4 b) { return _mm256_mul_pd(a.v, b.v); }
WI_FN D4 divide(D4 a, D4 b) { return _mm256_div_pd(a.v, b.v); }
WI_FN F8 fma(F8 a, F8 b, F8 c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }
WI_FN F8 sqrt(F8 a) { return _mm256_sqrt_ps(a.v); }
WI_FN D4 sqrt(D4 a) { return _mm256_sqrt_pd(a.v); }
WI_FN F8 min(F8 a, F8 b) { return _mm256_min_ps(b.v, a.v); }  // b < a ? b : a
WI_FN F8 max(F8 a, F8 b) { return _mm256_max_ps(b.v, a.v); }
WI_FN D4 min(D4 a, D4 b) { return _mm256_min_pd(b.v, a.v); }
WI_FN D4 max(D4 a, D4 b) { return _mm256_max_pd(b.v, a.v); }
WI_FN F8 to_float(U8 a) { return _mm256_cvtepi32_ps(a.v); }
WI_FN F8 as_float(U8 a) { return _mm256_castsi256_ps(a.v); }
WI_FN U8 as_bits(F8 a) { return _mm256_castps_si256(a.v); }
WI_FN D4 as_float(Q4 a) { return _mm256_castsi256_pd(a.v); }
WI_FN Q4 as_bits(D4 a) { return _mm256_castpd_si256(a.v); }
WI_FN U8 less(U8 a, U8 b) {  // unsigned
    const __m256i top = _mm256_set1_epi32(int(0x80000000u));
    return _mm256_cmpgt_epi32(_mm256_xor_si256(b.v, top), _mm256_xor_si256(a.v, top));
}
WI_FN Q4 less(Q4 a, Q4 b) {
    const __m256i top = _mm256_set1_epi64x((long long)0x8000000000000000u);
    return _mm256_cmpgt_epi64(_mm256_xor_si256(b.v, top), _mm256_xor_si256(a.v, top));
}
WI_FN U8 select(U8 mask, U8 a, U8 b) { return _mm256_blendv_epi8(b.v, a.v, mask.v); }
WI_FN F8 select(U8 mask, F8 a, F8 b) { return _mm256_blendv_ps(b.v, a.v, _mm256_castsi256_ps(mask.v)); }
WI_FN Q4 select(Q4 mask, Q4 a, Q4 b) { return _mm256_blendv_epi8(b.v, a.v, mask.v); }
WI_FN D4 select(Q4 mask, D4 a, D4 b) { return _mm256_blendv_pd(b.v, a.v, _mm256_castsi256_pd(mask.v)); }
WI_FN HiLo<U8> mul_hi_lo(U8 a, uint32_t m) {
    const __m256i multiplier = _mm256_set1_epi32(int(m));
    const __m256i even = _mm256_mul_epu32(a.v, multiplier);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a.v, 32), multiplier);
    return {_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA), _mm256_mullo_epi32(a.v, multiplier)};
}

struct Avx2 {
    using U = U8;
    using F = F8;
    using Q = Q4;
    using D = D4;
    static constexpr int kBlocks = 8;
    static constexpr int kWides = 2;
    static constexpr int kVectorBytes = 32;
    static constexpr bool kRoundsToBFloat16 = false;
    static constexpr bool kPairs = false;
    WI_FN U lane_blocks() { return _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7); }
    WI_FN void interleave4(const F x[4], F y[4]) {
        const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(x[0].v, x[1].v)),
                      b = _mm256_castps_pd(_mm256_unpackhi_ps(x[0].v, x[1].v));
        const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(x[2].v, x[3].v)),
                      d = _mm256_castps_pd(_mm256_unpackhi_ps(x[2].v, x[3].v));
        y[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
        y[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
        y[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
        y[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    }
    WI_FN void interleave4(const U x[4], U y[4]) {
        F f[4], g[4];
        for (int i = 0; i < 4; ++i) f[i] = as_float(x[i]);
        interleave4(f, g);
        for (int i = 0; i < 4; ++i) y[i] = as_bits(g[i]);
    }
    WI_FN void widen(U hi, U lo, Q q[2]) {
        q[0] = _mm256_unpacklo_epi32(lo.v, hi.v);
        q[1] = _mm256_unpackhi_epi32(lo.v, hi.v);
    }
    WI_FN void interleave2(D a, D b, D y[2]) {
        y[0] = _mm256_unpacklo_pd(a.v, b.v);
        y[1] = _mm256_unpackhi_pd(a.v, b.v);
    }
    WI_FN void store(float* out, F x) { _mm256_storeu_ps(out, x.v); }
    WI_FN void store(uint32_t* out, U x) { _mm256_storeu_si256((__m256i*)out, x.v); }
    WI_FN void store(double* out, D x) { _mm256_storeu_pd(out, x.v); }
    WI_FN F load(const float* in) { return _mm256_loadu_ps(in); }
    WI_FN D load(const double* in) { return _mm256_loadu_pd(in); }
    WI_FN void load16(const uint16_t* in, U x[4]) {
        for (int i = 0; i < 4; ++i) x[i] = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)(in + 8 * i)));
    }
    WI_FN void load8(const uint8_t* in, U x[4]) {
        for (int i = 0; i < 4; ++i) x[i] = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(in + 8 * i)));
    }
    WI_FN __m256i load_parts(const char* from, uint64_t apart) {  // 16 bytes each
        return _mm256_loadu2_m128i((const __m128i*)(from + apart), (const __m128i*)from);
    }
    template <class V>
    WI_FN void store_past_caches(void* to, V x) {
        if constexpr (sizeof x == 32)
            _mm256_stream_si256((__m256i*)to, (__m256i)x);
        else
            _mm_stream_si128((__m128i*)to, (__m128i)x);
    }
    WI_FN __m256i pack16(U a, U b) { return _mm256_permute4x64_epi64(_mm256_packus_epi32(a.v, b.v), 0xD8); }
    WI_FN void store16(uint16_t* out, const U x[4]) {
        _mm256_storeu_si256((__m256i*)out, pack16(x[0], x[1]));
        _mm256_storeu_si256((__m256i*)(out + 16), pack16(x[2], x[3]));
    }
    WI_FN void store8(uint8_t* out, const U x[4]) {
        const __m256i bytes = _mm256_packus_epi16(pack16(x[0], x[1]), pack16(x[2], x[3]));
        _mm256_storeu_si256((__m256i*)out, _mm256_permute4x64_epi64(bytes, 0xD8));
    }
    WI_FN U to_float16(F x) { return _mm256_cvtepu16_epi32(_mm256_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT)); }
};

}  // namespace WI_ISA
}  // namespace wi
