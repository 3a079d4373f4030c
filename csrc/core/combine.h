// Combining: elements that are in memory with the values made for them, in place (docs/numerics.md, section 5). Everything that an
// evaluator of one ISA has for it; who makes the values, and in what portions, is decided above (cpu/dispatch.cpp).
// Elements may be NaN or infinite, unlike made values: a result that is NaN is one and the same NaN on every machine.
#pragma once
#include "convert.h"

namespace wi {
namespace WI_ISA {

template <Mode kMode, class F>
WI_FN F combined32(F x, F v, F weight) {
    if constexpr (kMode == Mode::kAdd) return x + v;
    return fma(weight, v - x, x);
}
// float64 has no fma.
template <Mode kMode, class D>
WI_FN D combined64(D x, D v, D weight) {
    if constexpr (kMode == Mode::kAdd) return x + v;
    return weight * (v - x) + x;
}

template <class F, class U>
WI_FN U nan_mask(F x) {
    return less(U(0x7F800000u), as_bits(x) & U(0x7FFFFFFFu));
}

// Bits of x, rounded; of the quiet NaN if x is one.
template <class L, Storage kStorage>
WI_FN typename L::U bits_or_nan(typename L::F x) {
    using E = Element<L, kStorage>;
    using U = typename L::U;
    return select(nan_mask<typename L::F, U>(x), U(E::kNaN), E::bits(x));
}
template <class D, class Q>
WI_FN D quiet_nan64(D x) {
    const Q nan = less(Q(uint64_t(0x7FF0000000000000)), as_bits(x) & Q(uint64_t(0x7FFFFFFFFFFFFFFF)));
    return select(nan, as_float(Q(uint64_t(0x7FF8000000000000))), x);
}

// A set: four vectors of elements.
template <class L, Storage kStorage, Mode kMode>
struct CombineSet {
    using Kept = Element<L, kStorage>;
    using Made = Element<L, made_storage(kMode, kStorage)>;
    static constexpr int kSize = 4 * L::kBlocks;
    typename L::F weight;
    WI_MEMBER explicit CombineSet(double w) : weight(float(w)) {}
    WI_MEMBER void operator()(typename Kept::Type* memory, const typename Made::Type* made) const {
        typename L::U x[4], v[4];
        load4<L>(memory, x);
        load4<L>(made, v);
        WI_UNROLL for (int i = 0; i < 4; ++i)
            x[i] = bits_or_nan<L, kStorage>(combined32<kMode>(Kept::value(x[i]), Made::value(v[i]), weight));
        store4<L>(memory, x);
    }
};

template <class L, Mode kMode>
struct CombineSet<L, Storage::kFloat64, kMode> {
    struct Kept {
        using Type = double;
    };
    using Made = Kept;
    static constexpr int kLanes = L::kBlocks / L::kWides, kSize = 2 * kLanes;
    typename L::D weight;
    WI_MEMBER explicit CombineSet(double w) : weight(w) {}
    WI_MEMBER void operator()(double* memory, const double* made) const {
        WI_UNROLL for (int i = 0; i < kSize; i += kLanes) {
            const typename L::D x = combined64<kMode>(L::load(memory + i), L::load(made + i), weight);
            L::store(memory + i, quiet_nan64<typename L::D, typename L::Q>(x));
        }
    }
};

template <class Set>
void combine_run(void* memory, const void* made, uint64_t n, double weight) {
    using Type = typename Set::Kept::Type;
    using Made = typename Set::Made::Type;
    const Set set(weight);
    Type* x = static_cast<Type*>(memory);
    const Made* v = static_cast<const Made*>(made);
    for (; n >= uint64_t(Set::kSize); n -= Set::kSize, x += Set::kSize, v += Set::kSize) set(x, v);
    if (n == 0) return;
    Type last_x[Set::kSize] = {};
    Made last_v[Set::kSize] = {};
    memcpy(last_x, x, n * sizeof(Type));
    memcpy(last_v, v, n * sizeof(Made));
    set(last_x, last_v);
    memcpy(x, last_x, n * sizeof(Type));
}

template <class L, Mode kMode>
CombineFn find_combine_as(Storage storage) {
    switch (storage) {
        case Storage::kFloat32: return combine_run<CombineSet<L, Storage::kFloat32, kMode>>;
        case Storage::kFloat64: return combine_run<CombineSet<L, Storage::kFloat64, kMode>>;
        case Storage::kFloat16: return combine_run<CombineSet<L, Storage::kFloat16, kMode>>;
        case Storage::kBFloat16: return combine_run<CombineSet<L, Storage::kBFloat16, kMode>>;
        case Storage::kFloat8E4M3: return combine_run<CombineSet<L, Storage::kFloat8E4M3, kMode>>;
        case Storage::kFloat8E5M2: return combine_run<CombineSet<L, Storage::kFloat8E5M2, kMode>>;
        default: return nullptr;
    }
}

// What combines elements of a storage type on this ISA; null where nothing does.
template <class L>
CombineFn find_combine(Mode mode, Storage storage) {
    switch (mode) {
        case Mode::kAdd: return find_combine_as<L, Mode::kAdd>(storage);
        case Mode::kLerp: return find_combine_as<L, Mode::kLerp>(storage);
        default: return nullptr;
    }
}

}  // namespace WI_ISA
}  // namespace wi
