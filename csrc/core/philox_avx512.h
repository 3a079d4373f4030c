// Philox4x32-10 for AVX-512, where a 32 x 32 -> 64 multiply reads only the even lanes and an exclusive or takes three operands. The
// same function as in philox.h, found by overload. The blocks of a set are kept in two vectors of 64-bit lanes, and whatever is in
// the high halves is never read: no round has to bring products back to 32-bit lanes, and one costs 12 operations on 16 blocks,
// a third of them on either side of the processor's ports and a third on any.
#pragma once
#include "lanes_avx512.h"
#include "pack.h"
#include "philox.h"

namespace wi {
namespace WI_ISA {

WI_FN __m512i xor3(__m512i a, __m512i b, __m512i c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }
WI_FN __m512i high_half(__m512i a) { return _mm512_srli_epi64(a, 32); }

// Half a round: c is multiplied, t is the word that the high half meets. After it c is the new word, t the low half.
WI_FN void half_round(__m512i& c, __m512i& t, U16 key, __m512i m) {
    const __m512i p = _mm512_mul_epu32(c, m);
    c = xor3(high_half(p), t, key.v);
    t = p;
}

// Nine rounds, and of the tenth the products: a word of each block is the high half of `to_x`, or of `to_z`, after it has met y, or
// v; the next one is the low half. Each array holds the first eight blocks of a set, the others, and so on for K sets.
template <int K>
struct LastProducts {
    __m512i to_x[2 * K], y[2 * K], to_z[2 * K], v[2 * K];

    WI_MEMBER LastProducts(const Pack<U16, K>& block_lo, const PhiloxSpan<U16>& span) {
        const __m512i m0 = _mm512_set1_epi32(int(kPhiloxM0)), m1 = _mm512_set1_epi32(int(kPhiloxM1));
        __m512i x[2 * K], z[2 * K];
        WI_UNROLL for (int h = 0; h < 2 * K; ++h) {  // rounds 1 and 2, folded
            const __m512i b = block_lo.v[h / 2].v;
            const __m512i p = _mm512_mul_epu32(h % 2 ? _mm512_unpackhi_epi32(b, b) : _mm512_unpacklo_epi32(b, b), m0);
            y[h] = _mm512_mul_epu32(_mm512_xor_si512(high_half(p), span.round1_z.v), m1);
            z[h] = _mm512_xor_si512(p, span.round2_z.v);
            x[h] = _mm512_xor_si512(high_half(y[h]), span.round2_x.v);
        }
        WI_UNROLL for (int h = 0; h < 2 * K; ++h) {
            half_round(z[h], y[h], span.key0[2], m1);
            v[h] = _mm512_mul_epu32(x[h], m0);
            x[h] = _mm512_xor_si512(high_half(v[h]), span.round3_z.v);
        }
        WI_UNROLL for (int r = 3; r < 9; ++r) {  // x and z change places every round
            WI_UNROLL for (int h = 0; h < 2 * K; ++h) {
                half_round(r % 2 ? x[h] : z[h], y[h], span.key0[r], m1);
                half_round(r % 2 ? z[h] : x[h], v[h], span.key1[r], m0);
            }
        }
        WI_UNROLL for (int h = 0; h < 2 * K; ++h) {
            to_x[h] = _mm512_mul_epu32(x[h], m1);
            to_z[h] = _mm512_mul_epu32(z[h], m0);
        }
    }
};

// The even (0x88) or odd (0xDD) 32-bit lanes of both.
template <int kPick>
WI_FN __m512i pick(__m512i a, __m512i b) {
    return _mm512_castps_si512(_mm512_shuffle_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), kPick));
}

template <int K>
WI_FN void philox4x32_10(const Pack<U16, K>& block_lo, const PhiloxSpan<U16>& span, Pack<U16, K> w[4]) {
    const LastProducts<K> p(block_lo, span);
    WI_UNROLL for (int k = 0; k < K; ++k) {
        const int a = 2 * k, b = a + 1;
        w[0].v[k] = xor3(pick<0xDD>(p.to_x[a], p.to_x[b]), pick<0x88>(p.y[a], p.y[b]), span.key0[9].v);
        w[1].v[k] = pick<0x88>(p.to_x[a], p.to_x[b]);
        w[2].v[k] = xor3(pick<0xDD>(p.to_z[a], p.to_z[b]), pick<0x88>(p.v[a], p.v[b]), span.key1[9].v);
        w[3].v[k] = pick<0x88>(p.to_z[a], p.to_z[b]);
    }
}

// The same words as Avx512::interleave_pairs takes them.
template <int K>
WI_FN void philox4x32_10_pairs(const Pack<U16, K>& block_lo, const PhiloxSpan<U16>& span, Pack<U16, K> w[4]) {
    const LastProducts<K> p(block_lo, span);
    const __m512i key0 = _mm512_slli_epi64(span.key0[9].v, 32), key1 = _mm512_slli_epi64(span.key1[9].v, 32);
    WI_UNROLL for (int h = 0; h < 2 * K; ++h) {
        w[h % 2].v[h / 2] = xor3(p.to_x[h], _mm512_slli_epi64(p.y[h], 32), key0);
        w[2 + h % 2].v[h / 2] = xor3(p.to_z[h], _mm512_slli_epi64(p.v[h], 32), key1);
    }
}

}  // namespace WI_ISA
}  // namespace wi
