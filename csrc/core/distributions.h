// The distributions: the words of one block per lane in, values out, planes in and planes out. Stateless apart from parameters,
// which arrive rounded (weightinit_cuda/distributions.py). Formulas, ranges and errors: docs/numerics.md, by the same names.
#pragma once
#include "../job.h"
#include "math.h"

namespace wi {
namespace WI_ISA {

// 32-bit draws: four values from the words of a block.
template <class F, class U, bool kClamped>
struct Uniform32 {
    F low, range, lo, hi;
    WI_MEMBER explicit Uniform32(const Transform& t)
        : low(float(t.params[0])), range(float(t.params[1])), lo(float(t.params[2])), hi(float(t.params[3])) {}
    WI_MEMBER void operator()(const U w[4], F x[4]) const {
        WI_UNROLL for (int i = 0; i < 4; ++i) {
            const F u = to_float(w[i] & U(0xFFFFFFu)) * F(0x1p-24f);  // exact
            x[i] = fma(u, range, low);
            if (kClamped) x[i] = min(max(x[i], lo), hi);
        }
    }
};

template <class F, class U>
struct Normal32 {
    F mean, std;
    WI_MEMBER explicit Normal32(const Transform& t) : mean(float(t.params[0])), std(float(t.params[1])) {}
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
    F scale, center, mean, std, lo, hi;
    WI_MEMBER explicit TruncNormalCentral32(const Transform& t)
        : scale(float(t.params[0])), center(float(t.params[1])), mean(float(t.params[2])), std(float(t.params[3])),
          lo(float(t.params[4])), hi(float(t.params[5])) {}
    WI_MEMBER void operator()(const U w[4], F x[4]) const {
        WI_UNROLL for (int i = 0; i < 4; ++i) {
            const F z = quantile_central_32(fma(to_float(w[i] | U(1u)), scale, center));
            x[i] = min(max(fma(std, z, mean), lo), hi);
        }
    }
};

template <class F, class U>
struct TruncNormal32 {
    U split;
    F base_left, base_right, step, log_ref, mean, std, lo, hi;
    WI_MEMBER explicit TruncNormal32(const Transform& t)
        : split(uint32_t(t.integers[0])), base_left(float(t.params[0])), base_right(float(t.params[1])), step(float(t.params[2])),
          log_ref(float(t.params[3])), mean(float(t.params[4])), std(float(t.params[5])), lo(float(t.params[6])),
          hi(float(t.params[7])) {}
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
    D low, range, lo, hi;
    WI_MEMBER explicit Uniform64(const Transform& t) : low(t.params[0]), range(t.params[1]), lo(t.params[2]), hi(t.params[3]) {}
    WI_MEMBER void operator()(Q d0, Q d1, D x[2]) const {
        x[0] = value(d0);
        x[1] = value(d1);
    }
    WI_MEMBER D value(Q d) const {
        const D u = to_double53<D>(d >> 11) * D(0x1p-53);  // exact
        return min(max(u * range + low, lo), hi);
    }
};

template <class D, class Q>
struct Normal64 {
    D mean, std;
    WI_MEMBER explicit Normal64(const Transform& t) : mean(t.params[0]), std(t.params[1]) {}
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
    WI_MEMBER explicit TruncNormal64(const Transform& t)
        : split(uint64_t(t.integers[0])), base_left(t.params[0]), base_right(t.params[1]), step(t.params[2]), log_ref(t.params[3]),
          mean(t.params[4]), std(t.params[5]), lo(t.params[6]), hi(t.params[7]) {}
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
