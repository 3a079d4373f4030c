// Four float32 values, as a Philox block gives them, -> elements of a storage type, packed into words. With the instructions of
// the GPU where it has them; the bits are those of core/convert.h.
#pragma once
#include "../core/convert.h"
#include "launch.h"

#if defined(WI_EMULATED)
#define WI_KERNEL_FN inline
#else
#define WI_KERNEL_FN __device__ __forceinline__
#endif

// Which conversions the hardware has, and the assembler takes: those to float8 for sm_89 from CUDA 12.1 on.
#if !defined(WI_CUDA_VERSION) && defined(__CUDACC__)  // defined by a test only
#define WI_CUDA_VERSION (__CUDACC_VER_MAJOR__ * 100 + __CUDACC_VER_MINOR__)
#endif
#if defined(__CUDA_ARCH__)
#define WI_HAS_HALVES (__CUDA_ARCH__ >= 800)
#define WI_HAS_FLOAT8 (__CUDA_ARCH__ >= 900 || (__CUDA_ARCH__ >= 890 && WI_CUDA_VERSION >= 1201))
#else
#define WI_HAS_HALVES 0
#define WI_HAS_FLOAT8 0
#endif

namespace wi {
namespace WI_ISA {

// Two 16-bit floats of any format, each min(max(x, lo), hi) with -0 below +0, as the GPU's packed minimum and maximum have it.
WI_KERNEL_FN uint32_t clamp_halves(uint32_t word, uint32_t lo, uint32_t hi) {
    const auto rank = [](uint32_t half) { return half & 0x8000u ? 0x7FFFu - (half & 0x7FFFu) : half | 0x8000u; };
    uint32_t out = 0;
    WI_UNROLL for (int shift = 0; shift < 32; shift += 16) {
        const uint32_t x = word >> shift & 0xFFFFu, a = lo >> shift & 0xFFFFu, b = hi >> shift & 0xFFFFu;
        const uint32_t raised = rank(x) < rank(a) ? a : x;
        out |= (rank(b) < rank(raised) ? b : raised) << shift;
    }
    return out;
}

// Four float32 values -> their elements, packed into 4 * size / 4 words.
template <Storage kStorage>
struct PackWords;

template <>
struct PackWords<Storage::kFloat32> {
    WI_KERNEL_FN static void pack(const float x[4], uint32_t* words) {
        WI_UNROLL for (int i = 0; i < 4; ++i) words[i] = as_bits(x[i]);
    }
};
template <>
struct PackWords<Storage::kFloat16> {
    WI_KERNEL_FN static void pack(const float x[4], uint32_t* words) {
        WI_UNROLL for (int i = 0; i < 2; ++i) words[i] = two(x[2 * i], x[2 * i + 1]);
    }
    WI_KERNEL_FN static uint32_t clamp(uint32_t word, uint32_t lo, uint32_t hi) {
#if WI_HAS_HALVES
        asm("max.f16x2 %0, %0, %1;" : "+r"(word) : "r"(lo));
        asm("min.f16x2 %0, %0, %1;" : "+r"(word) : "r"(hi));
        return word;
#else
        return clamp_halves(word, lo, hi);
#endif
    }
    WI_KERNEL_FN static uint32_t two(float low, float high) {
#if WI_HAS_HALVES
        uint32_t word;
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
        return word;
#else
        return float16_bits<Scalar>(low) | float16_bits<Scalar>(high) << 16;
#endif
    }
};
template <>
struct PackWords<Storage::kBFloat16> {
    WI_KERNEL_FN static void pack(const float x[4], uint32_t* words) {
        WI_UNROLL for (int i = 0; i < 2; ++i) words[i] = two(x[2 * i], x[2 * i + 1]);
    }
    WI_KERNEL_FN static uint32_t clamp(uint32_t word, uint32_t lo, uint32_t hi) {
#if WI_HAS_HALVES
        asm("max.bf16x2 %0, %0, %1;" : "+r"(word) : "r"(lo));
        asm("min.bf16x2 %0, %0, %1;" : "+r"(word) : "r"(hi));
        return word;
#else
        return clamp_halves(word, lo, hi);
#endif
    }
    WI_KERNEL_FN static uint32_t two(float low, float high) {
#if WI_HAS_HALVES
        uint32_t word;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
        return word;
#else
        return bfloat16_bits<float, uint32_t>(low) | bfloat16_bits<float, uint32_t>(high) << 16;
#endif
    }
};
template <int kMantissa, int kBias>
WI_KERNEL_FN uint32_t four_float8(const float x[4], float limit) {
    uint32_t word = 0;
    WI_UNROLL for (int i = 0; i < 4; ++i) word |= small_float_bits<kMantissa, kBias, 8, float, uint32_t>(x[i], limit) << (8 * i);
    return word;
}
template <>
struct PackWords<Storage::kFloat8E4M3> {
    WI_KERNEL_FN static void pack(const float x[4], uint32_t* words) {
#if WI_HAS_FLOAT8  // to nearest even, beyond the largest value that one, -0 and subnormals kept
        uint16_t low, high;
        asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(low) : "f"(x[1]), "f"(x[0]));
        asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(high) : "f"(x[3]), "f"(x[2]));
        words[0] = low | uint32_t(high) << 16;
#else
        words[0] = four_float8<3, 7>(x, 448.0f);
#endif
    }
};
template <>
struct PackWords<Storage::kFloat8E5M2> {
    WI_KERNEL_FN static void pack(const float x[4], uint32_t* words) {
#if WI_HAS_FLOAT8
        uint16_t low, high;
        asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(low) : "f"(x[1]), "f"(x[0]));
        asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(high) : "f"(x[3]), "f"(x[2]));
        words[0] = low | uint32_t(high) << 16;
#else
        words[0] = four_float8<2, 15>(x, 57344.0f);
#endif
    }
};

// The value of a float16's bits. Of a NaN some NaN.
WI_KERNEL_FN float float16_value(uint32_t bits) {
#if defined(__CUDA_ARCH__)
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(uint16_t(bits)));
    return x;
#else
    return Element<Scalar, Storage::kFloat16>::value(bits);
#endif
}

// The unsigned integer of so many bytes.
template <int kBytes>
struct BitsOf;
template <>
struct BitsOf<1> {
    using Type = uint8_t;
};
template <>
struct BitsOf<2> {
    using Type = uint16_t;
};
template <>
struct BitsOf<4> {
    using Type = uint32_t;
};
template <>
struct BitsOf<8> {
    using Type = uint64_t;
};

// n words that are read and written at once.
template <int n>
struct alignas(4 * n) Words {
    uint32_t word[n];
};

}  // namespace WI_ISA
}  // namespace wi
