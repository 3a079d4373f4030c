// From planes of float32 values to elements in memory order: rounding to the storage type and the store.
// Round to nearest even everywhere; float8 saturates, float16 overflows to infinity (docs/numerics.md, section 4).
#pragma once
#include "../job.h"
#include "lanes_scalar.h"

namespace wi {
namespace WI_ISA {

template <class F, class U>
WI_FN U bfloat16_bits(F x) {
    const U b = as_bits(x);
    return (b + U(0x7FFFu) + ((b >> 16) & U(1u))) >> 16;
}

// Bits of the binary format with kMantissa stored mantissa bits and exponent bias kBias; magnitudes above `limit` become limit.
// Subnormals: adding `magic` makes the float adder round at the right bit (F. Giesen's float_to_half_fast3_rtne, generalised).
template <int kMantissa, int kBias, int kWidth, class F, class U>
WI_FN U small_float_bits(F x, float limit) {
    constexpr uint32_t kShift = 23 - kMantissa;
    constexpr uint32_t kMinNormal = uint32_t(127 - kBias + 1) << 23;
    constexpr uint32_t kMagic = uint32_t(127 - kBias + int(kShift) + 1) << 23;
    constexpr uint32_t kRebias = (uint32_t(kBias - 127) << 23) + (1u << (kShift - 1)) - 1;
    const U sign = as_bits(x) & U(0x80000000u);
    const U a = as_bits(min(as_float(as_bits(x) ^ sign), F(limit)));
    const U subnormal = as_bits(as_float(a) + as_float(U(kMagic))) - U(kMagic);
    const U normal = (a + U(kRebias) + ((a >> int(kShift)) & U(1u))) >> int(kShift);
    return select(less(a, U(kMinNormal)), subnormal, normal) | (sign >> (32 - kWidth));
}

// Vector ISAs convert to float16 in hardware; 65536 rounds to infinity.
template <class L>
WI_FN typename L::U float16_bits(typename L::F x) {
    return L::to_float16(x);
}
template <>
WI_MEMBER uint32_t float16_bits<Scalar>(float x) {
    return small_float_bits<10, 15, 16, float, uint32_t>(x, 65536.0f);
}

template <class L, Storage kStorage>
struct Store;

template <class L>
struct Store<L, Storage::kFloat32> {
    using Type = float;
    WI_FN void planes(Type* out, const typename L::F x[4]) {
        typename L::F y[4];
        L::interleave4(x, y);
        WI_UNROLL for (int i = 0; i < 4; ++i) L::store(out + i * L::kBlocks, y[i]);
    }
};

template <class L>
struct Store<L, Storage::kUInt32> {  // the words themselves
    using Type = uint32_t;
    WI_FN void planes(Type* out, const typename L::U x[4]) {
        typename L::U y[4];
        L::interleave4(x, y);
        WI_UNROLL for (int i = 0; i < 4; ++i) L::store(out + i * L::kBlocks, y[i]);
    }
};

template <class L>
struct Store<L, Storage::kFloat16> {
    using Type = uint16_t;
    WI_FN void planes(Type* out, const typename L::F x[4]) {
        typename L::F y[4];
        typename L::U bits[4];
        L::interleave4(x, y);
        WI_UNROLL for (int i = 0; i < 4; ++i) bits[i] = float16_bits<L>(y[i]);
        L::store16(out, bits);
    }
};

template <class L>
struct Store<L, Storage::kBFloat16> {
    using Type = uint16_t;
    WI_FN void planes(Type* out, const typename L::F x[4]) {
        typename L::F y[4];
        typename L::U bits[4];
        L::interleave4(x, y);
        WI_UNROLL for (int i = 0; i < 4; ++i) bits[i] = bfloat16_bits<typename L::F, typename L::U>(y[i]);
        L::store16(out, bits);
    }
};

template <class L>
struct Store<L, Storage::kFloat8E4M3> {
    using Type = uint8_t;
    WI_FN void planes(Type* out, const typename L::F x[4]) {
        typename L::F y[4];
        typename L::U bits[4];
        L::interleave4(x, y);
        WI_UNROLL for (int i = 0; i < 4; ++i) bits[i] = small_float_bits<3, 7, 8, typename L::F, typename L::U>(y[i], 448.0f);
        L::store8(out, bits);
    }
};

template <class L>
struct Store<L, Storage::kFloat8E5M2> {
    using Type = uint8_t;
    WI_FN void planes(Type* out, const typename L::F x[4]) {
        typename L::F y[4];
        typename L::U bits[4];
        L::interleave4(x, y);
        WI_UNROLL for (int i = 0; i < 4; ++i) bits[i] = small_float_bits<2, 15, 8, typename L::F, typename L::U>(y[i], 57344.0f);
        L::store8(out, bits);
    }
};

}  // namespace WI_ISA
}  // namespace wi
