// From planes of float32 values to elements in memory order: rounding to the storage type and the store; and back, exactly.
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

// The value of such bits. Exponent fields from that of `special` on are those of infinity and NaN.
template <int kMantissa, int kBias, int kWidth, class F, class U>
WI_FN F small_float_value(U bits, uint32_t special) {
    constexpr int kShift = 23 - kMantissa;
    constexpr uint32_t kRebias = uint32_t(127 - kBias) << 23, kMinNormal = kRebias + (1u << 23);
    const U sign = (bits >> (kWidth - 1)) << 31;
    const U a = (bits & U((1u << (kWidth - 1)) - 1)) << kShift;
    const U subnormal = as_bits(as_float(a + U(kMinNormal)) - as_float(U(kMinNormal)));
    const U finite = select(less(a, U(1u << 23)), subnormal, a + U(kRebias));
    return as_float(select(less(a, U(special << kShift)), finite, finite | U(0x7F800000u)) | sign);
}

// Elements as the low bits of words: what each storage type is in memory, its quiet NaN, and both conversions. bits() takes no NaN.
template <class L, Storage kStorage>
struct Element;

template <class L>
struct Element<L, Storage::kFloat32> {
    using Type = float;
    static constexpr uint32_t kNaN = 0x7FC00000u;
    WI_FN typename L::U bits(typename L::F x) { return as_bits(x); }
    WI_FN typename L::F value(typename L::U bits) { return as_float(bits); }
};
template <class L>
struct Element<L, Storage::kFloat16> {
    using Type = uint16_t;
    static constexpr uint32_t kNaN = 0x7E00u;
    WI_FN typename L::U bits(typename L::F x) { return float16_bits<L>(x); }
    WI_FN typename L::F value(typename L::U bits) {
        return small_float_value<10, 15, 16, typename L::F, typename L::U>(bits, 0x7C00u);
    }
};
template <class L>
struct Element<L, Storage::kBFloat16> {
    using Type = uint16_t;
    static constexpr uint32_t kNaN = 0x7FC0u;
    WI_FN typename L::U bits(typename L::F x) { return bfloat16_bits<typename L::F, typename L::U>(x); }
    WI_FN typename L::F value(typename L::U bits) { return as_float(bits << 16); }
};
template <class L>
struct Element<L, Storage::kFloat8E4M3> {
    using Type = uint8_t;
    static constexpr uint32_t kNaN = 0x7Fu;
    WI_FN typename L::U bits(typename L::F x) { return small_float_bits<3, 7, 8, typename L::F, typename L::U>(x, 448.0f); }
    WI_FN typename L::F value(typename L::U bits) {
        return small_float_value<3, 7, 8, typename L::F, typename L::U>(bits, 0x7Fu);
    }
};
template <class L>
struct Element<L, Storage::kFloat8E5M2> {
    using Type = uint8_t;
    static constexpr uint32_t kNaN = 0x7Fu;
    WI_FN typename L::U bits(typename L::F x) { return small_float_bits<2, 15, 8, typename L::F, typename L::U>(x, 57344.0f); }
    WI_FN typename L::F value(typename L::U bits) {
        return small_float_value<2, 15, 8, typename L::F, typename L::U>(bits, 0x7Cu);
    }
};

// Four vectors of elements to memory.
template <class L>
WI_FN void store4(float* out, const typename L::U bits[4]) {
    WI_UNROLL for (int i = 0; i < 4; ++i) L::store(out + i * L::kBlocks, as_float(bits[i]));
}
template <class L>
WI_FN void store4(uint16_t* out, const typename L::U bits[4]) {
    L::store16(out, bits);
}
template <class L>
WI_FN void store4(uint8_t* out, const typename L::U bits[4]) {
    L::store8(out, bits);
}

// The same from memory.
template <class L>
WI_FN void load4(const float* in, typename L::U bits[4]) {
    WI_UNROLL for (int i = 0; i < 4; ++i) bits[i] = as_bits(L::load(in + i * L::kBlocks));
}
template <class L>
WI_FN void load4(const uint16_t* in, typename L::U bits[4]) {
    L::load16(in, bits);
}
template <class L>
WI_FN void load4(const uint8_t* in, typename L::U bits[4]) {
    L::load8(in, bits);
}

// From planes, or pairs, to memory order. V: L::F or L::U.
template <class L, bool kInPairs, class V>
WI_FN void in_order(const V x[4], V y[4]) {
    if constexpr (kInPairs)
        L::interleave_pairs(x, y);
    else
        L::interleave4(x, y);
}

template <class L, Storage kStorage>
struct Store {
    using Type = typename Element<L, kStorage>::Type;
    template <bool kInPairs>
    WI_FN void set(Type* out, const typename L::F x[4]) {
        typename L::F y[4];
        typename L::U bits[4];
        in_order<L, kInPairs>(x, y);
        if constexpr (kStorage == Storage::kBFloat16 && L::kRoundsToBFloat16) {
            L::store_bfloat16(out, y);
        } else {
            WI_UNROLL for (int i = 0; i < 4; ++i) bits[i] = Element<L, kStorage>::bits(y[i]);
            store4<L>(out, bits);
        }
    }
};

template <class L>
struct Store<L, Storage::kUInt32> {  // the words themselves
    using Type = uint32_t;
    template <bool kInPairs>
    WI_FN void set(Type* out, const typename L::U x[4]) {
        typename L::U y[4];
        in_order<L, kInPairs>(x, y);
        WI_UNROLL for (int i = 0; i < 4; ++i) L::store(out + i * L::kBlocks, y[i]);
    }
};

}  // namespace WI_ISA
}  // namespace wi
