// Lane operations on 16 x 32 bits (8 x 64) with AVX-512 F, BW, DQ and VL. Include inside the target region of fill_avx512.cpp.
// Lanes hold blocks in the order 0 4 8 12 | 1 5 9 13 | 2 6 10 14 | 3 7 11 15, so that unpacking within 128-bit quarters
// restores memory order.
#pragma once
#include "lanes_scalar.h"

namespace wi {
namespace WI_ISA {

struct U16 {
    __m512i v;
    U16() = default;
    WI_MEMBER U16(__m512i a) : v(a) {}
    WI_MEMBER explicit U16(uint32_t a) : v(_mm512_set1_epi32(int(a))) {}
};
struct F16 {
    __m512 v;
    F16() = default;
    WI_MEMBER F16(__m512 a) : v(a) {}
    WI_MEMBER explicit F16(float a) : v(_mm512_set1_ps(a)) {}
};
struct Q8 {
    __m512i v;
    Q8() = default;
    WI_MEMBER Q8(__m512i a) : v(a) {}
    WI_MEMBER explicit Q8(uint64_t a) : v(_mm512_set1_epi64((long long)a)) {}
};
struct D8 {
    __m512d v;
    D8() = default;
    WI_MEMBER D8(__m512d a) : v(a) {}
    WI_MEMBER explicit D8(double a) : v(_mm512_set1_pd(a)) {}
};

WI_FN U16 operator+(U16 a, U16 b) { return _mm512_add_epi32(a.v, b.v); }
WI_FN U16 operator-(U16 a, U16 b) { return _mm512_sub_epi32(a.v, b.v); }
WI_FN U16 operator&(U16 a, U16 b) { return _mm512_and_si512(a.v, b.v); }
WI_FN U16 operator|(U16 a, U16 b) { return _mm512_or_si512(a.v, b.v); }
WI_FN U16 operator^(U16 a, U16 b) { return _mm512_xor_si512(a.v, b.v); }
WI_FN U16 operator<<(U16 a, int n) { return _mm512_slli_epi32(a.v, unsigned(n)); }
WI_FN U16 operator>>(U16 a, int n) { return _mm512_srli_epi32(a.v, unsigned(n)); }
WI_FN Q8 operator+(Q8 a, Q8 b) { return _mm512_add_epi64(a.v, b.v); }
WI_FN Q8 operator-(Q8 a, Q8 b) { return _mm512_sub_epi64(a.v, b.v); }
WI_FN Q8 operator&(Q8 a, Q8 b) { return _mm512_and_si512(a.v, b.v); }
WI_FN Q8 operator|(Q8 a, Q8 b) { return _mm512_or_si512(a.v, b.v); }
WI_FN Q8 operator^(Q8 a, Q8 b) { return _mm512_xor_si512(a.v, b.v); }
WI_FN Q8 operator<<(Q8 a, int n) { return _mm512_slli_epi64(a.v, unsigned(n)); }
WI_FN Q8 operator>>(Q8 a, int n) { return _mm512_srli_epi64(a.v, unsigned(n)); }
WI_FN F16 operator+(F16 a, F16 b) { return _mm512_add_ps(a.v, b.v); }
WI_FN F16 operator-(F16 a, F16 b) { return _mm512_sub_ps(a.v, b.v); }
WI_FN F16 operator*(F16 a, F16 b) { return _mm512_mul_ps(a.v, b.v); }
WI_FN F16 divide(F16 a, F16 b) { return _mm512_div_ps(a.v, b.v); }
WI_FN D8 operator+(D8 a, D8 b) { return _mm512_add_pd(a.v, b.v); }
WI_FN D8 operator-(D8 a, D8 b) { return _mm512_sub_pd(a.v, b.v); }
WI_FN D8 operator*(D8 a, D8 b) { return _mm512_mul_pd(a.v, b.v); }
WI_FN D8 divide(D8 a, D8 b) { return _mm512_div_pd(a.v, b.v); }
WI_FN F16 fma(F16 a, F16 b, F16 c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }
WI_FN F16 sqrt(F16 a) { return _mm512_sqrt_ps(a.v); }
WI_FN D8 sqrt(D8 a) { return _mm512_sqrt_pd(a.v); }
WI_FN F16 min(F16 a, F16 b) { return _mm512_min_ps(b.v, a.v); }  // b < a ? b : a
WI_FN F16 max(F16 a, F16 b) { return _mm512_max_ps(b.v, a.v); }
WI_FN D8 min(D8 a, D8 b) { return _mm512_min_pd(b.v, a.v); }
WI_FN D8 max(D8 a, D8 b) { return _mm512_max_pd(b.v, a.v); }
WI_FN F16 to_float(U16 a) { return _mm512_cvtepi32_ps(a.v); }
WI_FN F16 as_float(U16 a) { return _mm512_castsi512_ps(a.v); }
WI_FN U16 as_bits(F16 a) { return _mm512_castps_si512(a.v); }
WI_FN D8 as_float(Q8 a) { return _mm512_castsi512_pd(a.v); }
WI_FN Q8 as_bits(D8 a) { return _mm512_castpd_si512(a.v); }
WI_FN U16 less(U16 a, U16 b) { return _mm512_movm_epi32(_mm512_cmplt_epu32_mask(a.v, b.v)); }
WI_FN Q8 less(Q8 a, Q8 b) { return _mm512_movm_epi64(_mm512_cmplt_epu64_mask(a.v, b.v)); }
WI_FN __m512i select_bits(__m512i mask, __m512i a, __m512i b) { return _mm512_ternarylogic_epi32(mask, a, b, 0xCA); }
WI_FN U16 select(U16 mask, U16 a, U16 b) { return select_bits(mask.v, a.v, b.v); }
WI_FN F16 select(U16 mask, F16 a, F16 b) { return as_float(select(mask, as_bits(a), as_bits(b))); }
WI_FN Q8 select(Q8 mask, Q8 a, Q8 b) { return select_bits(mask.v, a.v, b.v); }
WI_FN D8 select(Q8 mask, D8 a, D8 b) { return as_float(select(mask, as_bits(a), as_bits(b))); }
WI_FN HiLo<U16> mul_hi_lo(U16 a, uint32_t m) {
    const __m512i multiplier = _mm512_set1_epi32(int(m));
    const __m512i even = _mm512_mul_epu32(a.v, multiplier);
    const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a.v, 32), multiplier);
    return {_mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_ENUM(0xF5)),
            _mm512_mask_shuffle_epi32(even, 0xAAAA, odd, _MM_PERM_ENUM(0xA0))};
}

struct Avx512 {
    using U = U16;
    using F = F16;
    using Q = Q8;
    using D = D8;
    static constexpr int kBlocks = 16;
    static constexpr int kWides = 2;
    static constexpr int kVectorBytes = 64;
    static constexpr bool kRoundsToBFloat16 = false;
    static constexpr bool kPairs = true;
    WI_FN U lane_blocks() { return _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15); }
    WI_FN void interleave4(const F x[4], F y[4]) {
        const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(x[0].v, x[1].v)),
                      b = _mm512_castps_pd(_mm512_unpackhi_ps(x[0].v, x[1].v));
        const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(x[2].v, x[3].v)),
                      d = _mm512_castps_pd(_mm512_unpackhi_ps(x[2].v, x[3].v));
        y[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        y[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        y[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        y[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    // x[0] and x[1] hold the second and first words of 8 blocks each, x[2] and x[3] the fourth and third, in turn.
    WI_FN void interleave_pairs(const F x[4], F y[4]) {
        for (int i = 0; i < 2; ++i) {
            y[2 * i] = _mm512_shuffle_ps(x[i].v, x[i + 2].v, 0x11);
            y[2 * i + 1] = _mm512_shuffle_ps(x[i].v, x[i + 2].v, 0xBB);
        }
    }
    WI_FN void interleave4(const U x[4], U y[4]) {
        F f[4], g[4];
        for (int i = 0; i < 4; ++i) f[i] = as_float(x[i]);
        interleave4(f, g);
        for (int i = 0; i < 4; ++i) y[i] = as_bits(g[i]);
    }
    WI_FN void interleave_pairs(const U x[4], U y[4]) {
        for (int i = 0; i < 2; ++i) {
            y[2 * i] = as_bits(F(_mm512_shuffle_ps(as_float(x[i]).v, as_float(x[i + 2]).v, 0x11)));
            y[2 * i + 1] = as_bits(F(_mm512_shuffle_ps(as_float(x[i]).v, as_float(x[i + 2]).v, 0xBB)));
        }
    }
    WI_FN void widen(U hi, U lo, Q q[2]) {
        q[0] = _mm512_unpacklo_epi32(lo.v, hi.v);
        q[1] = _mm512_unpackhi_epi32(lo.v, hi.v);
    }
    WI_FN void interleave2(D a, D b, D y[2]) {
        y[0] = _mm512_unpacklo_pd(a.v, b.v);
        y[1] = _mm512_unpackhi_pd(a.v, b.v);
    }
    WI_FN void store(float* out, F x) { _mm512_storeu_ps(out, x.v); }
    WI_FN void store(uint32_t* out, U x) { _mm512_storeu_si512(out, x.v); }
    WI_FN void store(double* out, D x) { _mm512_storeu_pd(out, x.v); }
    WI_FN F load(const float* in) { return _mm512_loadu_ps(in); }
    WI_FN D load(const double* in) { return _mm512_loadu_pd(in); }
    WI_FN void load16(const uint16_t* in, U x[4]) {
        for (int i = 0; i < 4; ++i) x[i] = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(in + 16 * i)));
    }
    WI_FN void load8(const uint8_t* in, U x[4]) {
        for (int i = 0; i < 4; ++i) x[i] = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)(in + 16 * i)));
    }
    WI_FN __m128i load_part(const char* from) { return _mm_loadu_si128((const __m128i*)from); }
    WI_FN __m512i load_parts(const char* from, uint64_t apart) {
        const __m512i a = _mm512_inserti32x4(_mm512_castsi128_si512(load_part(from)), load_part(from + apart), 1);
        return _mm512_inserti32x4(_mm512_inserti32x4(a, load_part(from + 2 * apart), 2), load_part(from + 3 * apart), 3);
    }
    template <class V>
    WI_FN void store_past_caches(void* to, V x) {
        if constexpr (sizeof x == 64)
            _mm512_stream_si512((__m512i*)to, (__m512i)x);
        else
            _mm_stream_si128((__m128i*)to, (__m128i)x);
    }
    WI_FN void store16(uint16_t* out, const U x[4]) {
        for (int i = 0; i < 4; ++i) _mm256_storeu_si256((__m256i*)(out + 16 * i), _mm512_cvtepi32_epi16(x[i].v));
    }
    WI_FN void store8(uint8_t* out, const U x[4]) {
        for (int i = 0; i < 4; ++i) _mm_storeu_si128((__m128i*)(out + 16 * i), _mm512_cvtepi32_epi8(x[i].v));
    }
    WI_FN U to_float16(F x) { return _mm512_cvtepu16_epi32(_mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT)); }
};

}  // namespace WI_ISA
}  // namespace wi
