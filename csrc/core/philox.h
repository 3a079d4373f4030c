// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC'11), unmodified.
// counter = (block lo, block hi, stream lo, stream hi), key = seed. Only the low half of the block differs between the blocks
// of a span, so everything in rounds 1 to 3 that does not depend on it is computed once, in PhiloxSpan.
#pragma once
#include "lanes_scalar.h"

namespace wi {
namespace WI_ISA {

constexpr uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u;  // multipliers, SC'11 table 2
constexpr uint32_t kPhiloxW0 = 0x9E3779B9u, kPhiloxW1 = 0xBB67AE85u;  // Weyl increments: golden ratio, sqrt(3) - 1

// 2^32 blocks with one seed, stream and high half of the block number. V: a vector that holds one word for every lane.
template <class V>
struct PhiloxSpan {
    V key0[10], key1[10];
    V round1_z, round2_x, round2_z, round3_z;

    WI_MEMBER PhiloxSpan(uint64_t seed, uint64_t stream, uint32_t block_hi) {
        uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
        WI_UNROLL for (int r = 0; r < 10; ++r) {
            key0[r] = V(k0 + uint32_t(r) * kPhiloxW0);
            key1[r] = V(k1 + uint32_t(r) * kPhiloxW1);
        }
        const HiLo<uint32_t> first = mul_hi_lo(uint32_t(stream), kPhiloxM1);
        const uint32_t x1 = first.hi ^ block_hi ^ k0;
        const HiLo<uint32_t> second = mul_hi_lo(x1, kPhiloxM0);
        round1_z = V(uint32_t(stream >> 32) ^ k1);
        round2_x = V(first.lo ^ (k0 + kPhiloxW0));
        round2_z = V(second.hi ^ (k1 + kPhiloxW1));
        round3_z = V(second.lo ^ (k1 + 2 * kPhiloxW1));
    }
};

// The four words of each block: w[0..3], from the product of block_lo and kPhiloxM0. U: V or a Pack of V.
template <class U, class V>
WI_FN void philox4x32_10_from(HiLo<U> p1, const PhiloxSpan<V>& span, U w[4]) {
    const HiLo<U> p2 = mul_hi_lo(p1.hi ^ span.round1_z, kPhiloxM1);
    HiLo<U> a = mul_hi_lo(p1.lo ^ span.round2_z, kPhiloxM1);      // of z
    HiLo<U> b = mul_hi_lo(p2.hi ^ span.round2_x, kPhiloxM0);      // of x
    U x = a.hi ^ (p2.lo ^ span.key0[2]), y = a.lo, z = b.hi ^ span.round3_z, v = b.lo;
    WI_UNROLL for (int r = 3; r < 10; ++r) {
        a = mul_hi_lo(z, kPhiloxM1);
        b = mul_hi_lo(x, kPhiloxM0);
        x = a.hi ^ (y ^ span.key0[r]);
        z = b.hi ^ (v ^ span.key1[r]);
        y = a.lo;
        v = b.lo;
    }
    w[0] = x;
    w[1] = y;
    w[2] = z;
    w[3] = v;
}
template <class U, class V>
WI_FN void philox4x32_10(U block_lo, const PhiloxSpan<V>& span, U w[4]) {
    philox4x32_10_from(mul_hi_lo(block_lo, kPhiloxM0), span, w);
}

}  // namespace WI_ISA
}  // namespace wi
