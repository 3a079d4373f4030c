// The distributions: the words of one block per lane in, values out, planes in and planes out. Stateless apart from parameters,
// which arrive rounded (weightinit_cuda/numerics/lowering.py) in a T with f32(i), f64(i) and integer(i): job.h's Transform, or the
// GPU's. Formulas, ranges and errors: docs/numerics.md, by the same names.
#pragma once
#include "../job.h"
#include "math.h"

namespace wi {
namespace WI_ISA {

// 32-bit draws: four values from the words of a block; kWordByWord: each from one word, whichever it is. kShort: words and all that
// the values take fit in 32 registers. No value is -0: k scale and low are multiples of 2^-149, so a sum that is
// not 0 cannot round to it, and low and 0 * scale are not -0.
template <class F, class U, bool kClamped>
struct Uniform32 {
    static constexpr bool kWordByWord = true, kShort = true;
    F low, scale, lo, hi;
    template <class T>
    WI_MEMBER explicit Uniform32(const T& t) : low(t.f32(0)), scale(grid_scale(F(t.f32(1)))), lo(t.f32(2)), hi(t.f32(3)) {}
    WI_MEMBER void operator()(const U w[4], F x[4]) const {
        WI_UNROLL for (int i = 0; i < 4; ++i) {
            x[i] = grid_value(w[i] & U(0xFFFFFFu), scale, low);
            if (kClamped) x[i] = min(max_without_minus_zero(x[i], lo), hi);
        }
    }
};

template <class F, class U>
struct Normal32 {
    static constexpr bool kWordByWord = false, kShort = false;
    F mean, std;
    template <class T>
    WI_MEMBER explicit Normal32(const T& t) : mean(t.f32(0)), std(t.f32(1)) {}
    WI_MEMBER void pair(U radius, U angle, F x[2]) const {  // Box and Muller 1958
        const F u = fma(to_float(radius & U(0x7FFFFFFFu)), F(0x1p-31f), F(0x1p-32f));
        const F r = sqrt(log_m2_32<F, U>(u, F(1e-30f)));  // 1e-30: u = 1 gives a tiny radius, not 0 (0 * inf)
        const CosSin<F> t = cos_sin_pi_32(fma(to_float(angle), F(0x1p-32f), F(0x1p-33f)));
        const F cos = as_float(as_bits(t.cos) ^ (radius & U(0x80000000u)));  // the other half of the circle
        x[0] = fma(std, r * cos, mean);
        x[1] = fma(std, r * t.sin, mean);
    }
    WI_MEMBER void operator()(const U w[4], F x[4]) const {
        pair(w[0], w[1], x);
        pair(w[2], w[3], x + 2);
    }
};

template <class F, class U>
struct TruncNormalCentral32 {
    static constexpr bool kWordByWord = true, kShort = false;
    F scale, center, mean, std, lo, hi;
    template <class T>
    WI_MEMBER explicit TruncNormalCentral32(const T& t)
        : scale(t.f32(0)), center(t.f32(1)), mean(t.f32(2)), std(t.f32(3)),
          lo(t.f32(4)), hi(t.f32(5)) {}
    WI_MEMBER void operator()(const U w[4], F x[4]) const {
        WI_UNROLL for (int i = 0; i < 4; ++i) {
            const F z = quantile_central_32(fma(to_float(w[i] | U(1u)), scale, center));
            x[i] = min(max(fma(std, z, mean), lo), hi);
        }
    }
};

template <class F, class U>
struct TruncNormal32 {
    static constexpr bool kWordByWord = true, kShort = false;
    U split;
    F base_left, base_right, step, log_ref, mean, std, lo, hi;
    template <class T>
    WI_MEMBER explicit TruncNormal32(const T& t)
        : split(uint32_t(t.integer(0))), base_left(t.f32(0)), base_right(t.f32(1)), step(t.f32(2)),
          log_ref(t.f32(3)), mean(t.f32(4)), std(t.f32(5)), lo(t.f32(6)),
          hi(t.f32(7)) {}
    WI_MEMBER void operator()(const U w[4], F x[4]) const {
        WI_UNROLL for (int i = 0; i < 4; ++i) {
            const U left = less(w[i], split);
            const U n = (w[i] ^ U(0xFFFFFFFFu) ^ left) >> 1;  // counts from the nearer bound
            const F v = fma(to_float(n), step, select(left, base_left, base_right));
            const F z = quantile_tail_32(sqrt(log_m2_32<F, U>(v, log_ref)));
            const F signed_z = as_float(as_bits(z) ^ (left & U(0x80000000u)));
            x[i] = min(max(fma(std, signed_z, mean), lo), hi);
        }
    }
};

// 64-bit draws: two values from the two draws of a block.
template <class D, class Q>
struct Uniform64 {
    D low, scale, lo, hi;
    template <class T>
    WI_MEMBER explicit Uniform64(const T& t) : low(t.f64(0)), scale(t.f64(1)), lo(t.f64(2)), hi(t.f64(3)) {}
    WI_MEMBER void operator()(Q d0, Q d1, D x[2]) const {
        x[0] = value(d0);
        x[1] = value(d1);
    }
    WI_MEMBER D value(Q d) const {
        return min(max(to_double53<D>(d >> 11) * scale + low, lo), hi);
    }
};

template <class D, class Q>
struct Normal64 {
    D mean, std;
    template <class T>
    WI_MEMBER explicit Normal64(const T& t) : mean(t.f64(0)), std(t.f64(1)) {}
    WI_MEMBER void operator()(Q d0, Q d1, D x[2]) const {
        const D u = D(2.0) - as_float((d0 >> 12) | Q(uint64_t(0x3FF0000000000000)));
        const D r = sqrt(log_m2_64<D, Q>(u, D(1e-300)));
        const CosSin<D> t = cos_sin_pi_64(as_float((d1 >> 12) | Q(uint64_t(0x3FF0000000000001))) - D(1.5));
        const D cos = as_float(as_bits(t.cos) ^ (d1 << 63));
        x[0] = std * (r * cos) + mean;
        x[1] = std * (r * t.sin) + mean;
    }
};

template <class D, class Q>
struct TruncNormal64 {
    Q split;
    D base_left, base_right, step, log_ref, mean, std, lo, hi;
    template <class T>
    WI_MEMBER explicit TruncNormal64(const T& t)
        : split(t.integer(0)), base_left(t.f64(0)), base_right(t.f64(1)), step(t.f64(2)), log_ref(t.f64(3)),
          mean(t.f64(4)), std(t.f64(5)), lo(t.f64(6)), hi(t.f64(7)) {}
    WI_MEMBER void operator()(Q d0, Q d1, D x[2]) const {
        x[0] = value(d0);
        x[1] = value(d1);
    }
    WI_MEMBER D value(Q d) const {
        const Q left = less(d, split);
        const Q n = d ^ Q(~uint64_t(0)) ^ left;
        const D unit = as_float((n >> 12) | Q(uint64_t(0x3FF0000000000000))) - D(1.0);
        const D v = unit * step + select(left, base_left, base_right);
        const D z = quantile_tail_64(sqrt(log_m2_64<D, Q>(v, log_ref)));
        const D signed_z = as_float(as_bits(z) ^ (left & Q(uint64_t(0x8000000000000000))));
        return min(max(std * signed_z + mean, lo), hi);
    }
};

}  // namespace WI_ISA
}  // namespace wi
