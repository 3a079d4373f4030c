// -2 ln u, sin and cos of pi a, and quantiles of the normal distribution, from exactly rounded operations in a fixed order.
// Each function's range, error and source are a row of docs/numerics.md; coefficients come from tools/fit_polynomials.py.
// float: Horner by fma. double: multiply and add apart. F and U, or D and Q, are lanes or Packs of lanes.
#pragma once
#include "coefficients.h"
#include "lanes_scalar.h"

namespace wi {
namespace WI_ISA {

// What the GPU does in another way; its own are in scalar_device.h.

// k scale + low for an integer k < 2^24, rounded once. The GPU has its own pair, for which the scale is prepared once.
template <class F>
WI_FN F grid_scale(F scale) {
    return scale;
}
template <class F, class U>
WI_FN F grid_value(U k, F scale, F low) {
    return fma(to_float(k), scale, low);
}

// max(a, b) where a, too, is not -0.
template <class F>
WI_FN F max_without_minus_zero(F a, F b) {
    return max(a, b);
}

// c - a b for c that is not 0, rounded once.
template <class F>
WI_FN F subtract_product(F c, F a, F b) {
    return fma(F(0.0f) - a, b, c);
}

// K is a constexpr array; its elements become immediates (nvcc knows such arrays only as template arguments).
template <const auto& K, int kFrom = 0, class F>
WI_FN F horner32(F x) {
    constexpr float c = K[kFrom];
    if constexpr (kFrom + 1 == sizeof(K) / sizeof(K[0])) {
        return F(c);
    } else {
        return fma(horner32<K, kFrom + 1>(x), x, F(c));
    }
}

template <const auto& K, int kFrom = 0, class D>
WI_FN D horner64(D x) {
    constexpr double c = K[kFrom];
    if constexpr (kFrom + 1 == sizeof(K) / sizeof(K[0])) {
        return D(c);
    } else {
        return horner64<K, kFrom + 1>(x) * x + D(c);
    }
}

// c0 - 2 ln u, for normal u > 0.
template <class F, class U>
WI_FN F log_m2_32(F u, F c0) {
    const U exponent = (as_bits(u) - U(0x3F3504F3u)) & U(0xFF800000u);  // in units of sqrt(1/2)
    const F f = as_float(as_bits(u) - exponent) - F(1.0f);              // exact, in [sqrt(1/2) - 1, sqrt(2) - 1)
    const F scaled = fma(to_float(exponent), F(-0x1.62e43p-23f), c0);   // -2 ln 2 times the exponent
    return fma(f, horner32<coefficients::f32::kLog>(f), scaled);
}

template <class D, class Q>
WI_FN D log_m2_64(D u, D c0) {
    const Q exponent = (as_bits(u) - Q(uint64_t(0x3FE6A09E667F3BCD))) & Q(uint64_t(0xFFF0000000000000));
    const D m = as_float(as_bits(u) - exponent);
    const D e = as_float(((exponent >> 52) ^ Q(uint64_t(0x800))) | Q(uint64_t(0x4330000000000000))) - D(0x1p52 + 2048.0);
    const D s = divide(m - D(1.0), m + D(1.0));
    return s * horner64<coefficients::f64::kLog>(s * s) + (e * D(-0x1.62e42fefa39efp+0) + c0);
}

// (cos, sin) of pi a, |a| <= 1/2.
template <class F>
struct CosSin {
    F cos, sin;
};
template <class F>
WI_FN CosSin<F> cos_sin_pi_32(F a) {
    const F y = a * a;
    return {horner32<coefficients::f32::kCos>(y), a * horner32<coefficients::f32::kSin>(y)};
}
template <class D>
WI_FN CosSin<D> cos_sin_pi_64(D a) {
    const D y = a * a;
    return {horner64<coefficients::f64::kCos>(y), a * horner64<coefficients::f64::kSin>(y)};
}

// The normal quantile z with erf(z / sqrt 2) = x, for |z| up to kCentralSigma.
template <class F>
WI_FN F quantile_central_32(F x) {
    const F v = subtract_product(F(coefficients::kCentralX2), x, x);
    return x * divide(horner32<coefficients::f32::kQuantileCentralP>(v), horner32<coefficients::f32::kQuantileCentralQ>(v));
}

// The z with upper tail probability q, from r = sqrt(-2 ln q); z = 0 at r = R0.
template <class F>
WI_FN F quantile_tail_32(F r) {
    using namespace coefficients::f32;
    const F t = r - F(kQuantileTailR0);
    return t + divide(horner32<kQuantileTailP>(t), horner32<kQuantileTailQ>(t));
}
template <class D>
WI_FN D quantile_tail_64(D r) {
    using namespace coefficients::f64;
    const D t = r - D(kQuantileTailR0);
    return t + divide(horner64<kQuantileTailP>(t), horner64<kQuantileTailQ>(t));
}

// 53 random bits -> integer-valued double < 2^53, exact without an integer conversion (two halves by exponent patterns).
template <class D, class Q>
WI_FN D to_double53(Q k) {
    const D hi = as_float((k >> 32) | Q(uint64_t(0x4530000000000000)));                      // 2^84 + hi 2^32
    const D lo = as_float((k & Q(uint64_t(0xFFFFFFFF))) | Q(uint64_t(0x4330000000000000)));  // 2^52 + lo
    return (hi - D(0x1p84 + 0x1p52)) + lo;
}

}  // namespace WI_ISA
}  // namespace wi
