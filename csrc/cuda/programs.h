// The programs: what a Philox block of random words becomes, for every kind and storage. A class for each, which the loops over
// whole tiles inline; and one function for all, which the careful paths and the kernel that combines share.
#pragma once
#include "../core/distributions.h"
#include "elements.h"

namespace wi {
namespace WI_ISA {

// What a block of words becomes: kWords words of kPerBlock elements of type Element.
template <template <class, class> class Distribution, Storage kStorage>
struct Block32 {
    using Element = typename Store<Scalar, kStorage>::Type;
    static constexpr int kPerBlock = 4, kWords = item_size(kStorage);
    Distribution<float, uint32_t> distribution;
    WI_KERNEL_FN explicit Block32(const CudaJob& job) : distribution(job) {}
    WI_KERNEL_FN void operator()(const uint32_t w[4], uint64_t, uint32_t* out) const {
        float x[4];
        distribution(w, x);
        PackWords<kStorage>::pack(x, out);
    }
};

// Uniform in 16 bits: clamped after rounding, two elements at once. The same, since rounding is monotonic, lo and hi are elements,
// and the value is not -0. (A value below lo = +0 may be rounded to -0; the packed maximum makes it +0.)
template <Storage kStorage>
struct BlockUniform16 {
    using Element = uint16_t;
    static constexpr int kPerBlock = 4, kWords = 2;
    Uniform32<float, uint32_t, false> uniform;
    uint32_t lo, hi;
    WI_KERNEL_FN explicit BlockUniform16(const CudaJob& job)
        : uniform(job), lo(PackWords<kStorage>::two(job.f32(2), job.f32(2))),
          hi(PackWords<kStorage>::two(job.f32(3), job.f32(3))) {}
    WI_KERNEL_FN void operator()(const uint32_t w[4], uint64_t, uint32_t* out) const {
        float x[4];
        uniform(w, x);
        PackWords<kStorage>::pack(x, out);
        WI_UNROLL for (int i = 0; i < 2; ++i) out[i] = PackWords<kStorage>::clamp(out[i], lo, hi);
    }
};

template <template <class, class> class Distribution>
struct Block64 {
    using Element = double;
    static constexpr int kPerBlock = 2, kWords = 4;
    Distribution<double, uint64_t> distribution;
    WI_KERNEL_FN explicit Block64(const CudaJob& job) : distribution(job) {}
    WI_KERNEL_FN void operator()(const uint32_t w[4], uint64_t, uint32_t* out) const {
        double x[2];
        distribution(uint64_t(w[0]) << 32 | w[1], uint64_t(w[2]) << 32 | w[3], x);
        WI_UNROLL for (int i = 0; i < 2; ++i) {
            const uint64_t bits = as_bits(x[i]);
            out[2 * i] = uint32_t(bits);
            out[2 * i + 1] = uint32_t(bits >> 32);
        }
    }
};

struct BlockBits {
    using Element = uint32_t;
    static constexpr int kPerBlock = 4, kWords = 4;
    WI_KERNEL_FN explicit BlockBits(const CudaJob&) {}
    WI_KERNEL_FN void operator()(const uint32_t w[4], uint64_t, uint32_t* out) const {
        WI_UNROLL for (int i = 0; i < 4; ++i) out[i] = w[i];
    }
};

// Constants and one-hot rows: no random words; a "block" is 4 elements (2 of 8 bytes), as for the others.
template <class T, bool kOneHot>
struct BlockPattern {
    using Element = T;
    static constexpr int kPerBlock = sizeof(T) == 8 ? 2 : 4, kWords = kPerBlock * int(sizeof(T)) / 4;
    const CudaJob& job;
    WI_KERNEL_FN explicit BlockPattern(const CudaJob& j) : job(j) {}
    WI_KERNEL_FN T element(uint64_t index) const {
        if (!kOneHot) return T(job.integers[0]);
        const uint64_t row = index / job.integers[0], k = row % job.integers[1];
        const uint64_t at = index - row * job.integers[0];
        return k < job.integers[2] && at == job.integers[3] + k * job.integers[4] ? T(job.integers[5]) : T(0);
    }
    WI_KERNEL_FN void operator()(const uint32_t*, uint64_t block, uint32_t* out) const {
        WI_UNROLL for (int i = 0; i < kWords; ++i) out[i] = 0;
        WI_UNROLL for (int i = 0; i < kPerBlock; ++i) {
            const uint64_t bits = uint64_t(element(block * kPerBlock + uint64_t(i)));
            const int bit = i * int(sizeof(T)) * 8;
            out[bit / 32] |= uint32_t(bits) << (bit % 32);
            if constexpr (sizeof(T) == 8) out[bit / 32 + 1] |= uint32_t(bits >> 32);
        }
    }
};

template <class F, class U>
using Uniform32Open = Uniform32<F, U, false>;
template <class F, class U>
using Uniform32Clamped = Uniform32<F, U, true>;

template <class F, class U>
struct UniformWide32 {
    F low, scale, lo, hi;
    WI_MEMBER explicit UniformWide32(const CudaJob& t) : low(t.f32(0)), scale(t.f32(1)), lo(t.f32(2)), hi(t.f32(3)) {}
    WI_MEMBER void operator()(const U w[4], F x[4]) const {
        WI_UNROLL for (int i = 0; i < 4; ++i)
            x[i] = min(max_without_minus_zero(fma(to_float(w[i] & U(0xFFFFFFu)), scale, low), lo), hi);
    }
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool kClampsHalves = false;
#else
constexpr bool kClampsHalves = true;
#endif
template <Storage kStorage, bool kHalves = kClampsHalves && item_size(kStorage) == 2>
struct BlockUniformClamped {
    using Type = Block32<Uniform32Clamped, kStorage>;
};
template <Storage kStorage>
struct BlockUniformClamped<kStorage, true> {
    using Type = BlockUniform16<kStorage>;
};

// The values of a block of any kind that is a distribution, before they are rounded to the storage type.
WI_KERNEL_FN void make_values(const CudaJob& job, const uint32_t w[4], float x[4]) {
    switch (job.kind) {
        case int(Kind::kUniform): return Uniform32Open<float, uint32_t>{job}(w, x);
        case int(Kind::kUniformClamped): return Uniform32Clamped<float, uint32_t>{job}(w, x);
        case kUniformWide: return UniformWide32<float, uint32_t>{job}(w, x);
        case int(Kind::kNormal): return Normal32<float, uint32_t>{job}(w, x);
        case int(Kind::kTruncNormalCentral): return TruncNormalCentral32<float, uint32_t>{job}(w, x);
        default: return TruncNormal32<float, uint32_t>{job}(w, x);
    }
}

WI_KERNEL_FN void make_values(const CudaJob& job, const uint32_t w[4], double x[2]) {
    const uint64_t d0 = uint64_t(w[0]) << 32 | w[1], d1 = uint64_t(w[2]) << 32 | w[3];
    switch (job.kind) {
        case int(Kind::kUniform):
        case int(Kind::kUniformClamped): return Uniform64<double, uint64_t>{job}(d0, d1, x);
        case int(Kind::kNormal): return Normal64<double, uint64_t>{job}(d0, d1, x);
        default: return TruncNormal64<double, uint64_t>{job}(d0, d1, x);
    }
}

}  // namespace WI_ISA
}  // namespace wi
