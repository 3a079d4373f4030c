// K vectors that go through every operation together: the compiler sees K independent chains and hides their latency.
// A Pack is a lane type made of a lane type, so the core is the same text for any K.
#pragma once
#include "lanes_scalar.h"

namespace wi {
namespace WI_ISA {

template <class V, int K>
struct Pack {
    V v[K];
    Pack() = default;
    template <class T>
    WI_MEMBER explicit Pack(T x) {
        WI_UNROLL for (int k = 0; k < K; ++k) v[k] = V(x);
    }
};

#define WI_PACK_BINARY(op)                                                  \
    template <class V, int K>                                               \
    WI_FN Pack<V, K> operator op(const Pack<V, K>& a, const Pack<V, K>& b) { \
        Pack<V, K> r;                                                       \
        WI_UNROLL for (int k = 0; k < K; ++k) r.v[k] = a.v[k] op b.v[k]; \
        return r;                                                           \
    }
WI_PACK_BINARY(+)
WI_PACK_BINARY(-)
WI_PACK_BINARY(*)
WI_PACK_BINARY(&)
WI_PACK_BINARY(|)
WI_PACK_BINARY(^)
#undef WI_PACK_BINARY

#define WI_PACK_SHIFT(op)                                      \
    template <class V, int K>                                  \
    WI_FN Pack<V, K> operator op(const Pack<V, K>& a, int n) { \
        Pack<V, K> r;                                          \
        WI_UNROLL for (int k = 0; k < K; ++k) r.v[k] = a.v[k] op n; \
        return r;                                              \
    }
WI_PACK_SHIFT(<<)
WI_PACK_SHIFT(>>)
#undef WI_PACK_SHIFT

#define WI_PACK_UNARY(name)                                                        \
    template <class V, int K>                                                      \
    WI_FN auto name(const Pack<V, K>& a)->Pack<decltype(name(a.v[0])), K> {        \
        Pack<decltype(name(a.v[0])), K> r;                                         \
        WI_UNROLL for (int k = 0; k < K; ++k) r.v[k] = name(a.v[k]); \
        return r;                                                                  \
    }
WI_PACK_UNARY(to_float)
WI_PACK_UNARY(as_float)
WI_PACK_UNARY(as_bits)
WI_PACK_UNARY(sqrt)
#undef WI_PACK_UNARY

#define WI_PACK_PAIR(name)                                                 \
    template <class V, int K>                                              \
    WI_FN Pack<V, K> name(const Pack<V, K>& a, const Pack<V, K>& b) {      \
        Pack<V, K> r;                                                      \
        WI_UNROLL for (int k = 0; k < K; ++k) r.v[k] = name(a.v[k], b.v[k]); \
        return r;                                                          \
    }
WI_PACK_PAIR(min)
WI_PACK_PAIR(max)
WI_PACK_PAIR(divide)
WI_PACK_PAIR(less)
#undef WI_PACK_PAIR

template <class V, int K>
WI_FN Pack<V, K> fma(const Pack<V, K>& a, const Pack<V, K>& b, const Pack<V, K>& c) {
    Pack<V, K> r;
    WI_UNROLL for (int k = 0; k < K; ++k) r.v[k] = fma(a.v[k], b.v[k], c.v[k]);
    return r;
}
template <class M, class V, int K>
WI_FN Pack<V, K> select(const Pack<M, K>& mask, const Pack<V, K>& a, const Pack<V, K>& b) {
    Pack<V, K> r;
    WI_UNROLL for (int k = 0; k < K; ++k) r.v[k] = select(mask.v[k], a.v[k], b.v[k]);
    return r;
}

template <class V, int K>
WI_FN Pack<V, K> operator^(const Pack<V, K>& a, V b) {
    Pack<V, K> r;
    WI_UNROLL for (int k = 0; k < K; ++k) r.v[k] = a.v[k] ^ b;
    return r;
}
template <class V, int K>
WI_FN HiLo<Pack<V, K>> mul_hi_lo(const Pack<V, K>& a, uint32_t m) {
    HiLo<Pack<V, K>> r;
    WI_UNROLL for (int k = 0; k < K; ++k) {
        const HiLo<V> product = mul_hi_lo(a.v[k], m);
        r.hi.v[k] = product.hi;
        r.lo.v[k] = product.lo;
    }
    return r;
}

template <class L, int K>
struct Packed {
    using U = Pack<typename L::U, K>;
    using F = Pack<typename L::F, K>;
    using Q = Pack<typename L::Q, K>;
    using D = Pack<typename L::D, K>;
};

}  // namespace WI_ISA
}  // namespace wi
