// Runs: n consecutive elements of the global tensor, from any index, into consecutive memory. Everything an evaluator of one
// ISA consists of; which kernel, which memory and which thread is decided above (cpu/dispatch.cpp).
// Tiles of words are made first and transformed after: the two halves then each fit the register file. Or, where both fit at once,
// words are transformed where they are.
#pragma once
#include "convert.h"
#include "distributions.h"
#include "pack.h"
#include "philox.h"

namespace wi {

namespace WI_ISA {

constexpr int kTileBlocks = 192;                   // at most: 3 KiB of words, in L1 whatever else is there
constexpr int kAhead = 2048;                       // bytes, of what is transformed at once: as far ahead as tiles fetch
constexpr int kPhiloxPack = WI_PHILOX_PACK;        // sets that go through Philox together
constexpr int kTransformPack = WI_TRANSFORM_PACK;  // sets that go through a transform together

constexpr int kStepSets = kPhiloxPack % kTransformPack == 0 ? kPhiloxPack : kPhiloxPack * kTransformPack;

// How one set (L::kBlocks blocks, as planes of words or in pairs) or a Pack of K sets becomes elements.
template <template <class, class> class Distribution, Storage kStorage>
struct Values32 {
    using Type = typename Store<Scalar, kStorage>::Type;
    static constexpr int kPerBlock = 4;
    template <class L>
    using Of = Distribution<typename L::F, typename L::U>;
    template <class L>
    static constexpr bool kInPairs = L::kPairs && Of<L>::kWordByWord;
    template <class L>
    static constexpr bool kInRegisters = kInPairs<L> && Of<L>::kShort;
    template <class L, int K>
    struct On {
        using P = Packed<L, K>;
        Distribution<typename P::F, typename P::U> distribution;
        WI_MEMBER explicit On(const Transform& t) : distribution(t) {}
        WI_MEMBER void operator()(const typename L::U words[][4], Type* out) const {
            typename P::U w[4];
            typename P::F x[4];
            WI_UNROLL for (int k = 0; k < K; ++k) {
                WI_UNROLL for (int i = 0; i < 4; ++i) w[i].v[k] = words[k][i];
            }
            distribution(w, x);
            WI_UNROLL for (int k = 0; k < K; ++k) {
                const typename L::F set[4] = {x[0].v[k], x[1].v[k], x[2].v[k], x[3].v[k]};
                Store<L, kStorage>::template set<kInPairs<L>>(out + k * 4 * L::kBlocks, set);
            }
        }
    };
};

template <template <class, class> class Distribution>
struct Values64 {
    using Type = double;
    static constexpr int kPerBlock = 2;
    template <class L>
    static constexpr bool kInPairs = L::kPairs;
    template <class L>
    static constexpr bool kInRegisters = false;
    template <class L, int K>
    struct On {
        using P = Packed<L, K>;
        Distribution<typename P::D, typename P::Q> distribution;
        WI_MEMBER explicit On(const Transform& t) : distribution(t) {}
        WI_MEMBER void operator()(const typename L::U words[][4], Type* out) const {
            constexpr int kLanes = L::kBlocks / L::kWides;
            typename P::Q d0[L::kWides], d1[L::kWides];
            WI_UNROLL for (int k = 0; k < K; ++k) {
                typename L::Q even[L::kWides], odd[L::kWides];
                if constexpr (kInPairs<L>) {
                    WI_UNROLL for (int j = 0; j < L::kWides; ++j) even[j] = words[k][j].v, odd[j] = words[k][L::kWides + j].v;
                } else {
                    L::widen(words[k][0], words[k][1], even);
                    L::widen(words[k][2], words[k][3], odd);
                }
                WI_UNROLL for (int j = 0; j < L::kWides; ++j) {
                    d0[j].v[k] = even[j];
                    d1[j].v[k] = odd[j];
                }
            }
            WI_UNROLL for (int j = 0; j < L::kWides; ++j) {
                typename P::D x[2];
                distribution(d0[j], d1[j], x);
                WI_UNROLL for (int k = 0; k < K; ++k) {
                    typename L::D y[2];
                    L::interleave2(x[0].v[k], x[1].v[k], y);
                    Type* to = out + k * 2 * L::kBlocks + 2 * j * kLanes;
                    L::store(to, y[0]);
                    L::store(to + kLanes, y[1]);
                }
            }
        }
    };
};

struct Words {  // the words themselves
    using Type = uint32_t;
    static constexpr int kPerBlock = 4;
    template <class L>
    static constexpr bool kInPairs = L::kPairs;
    template <class L>
    static constexpr bool kInRegisters = L::kPairs;
    template <class L, int K>
    struct On {
        WI_MEMBER explicit On(const Transform&) {}
        WI_MEMBER void operator()(const typename L::U words[][4], Type* out) const {
            WI_UNROLL for (int k = 0; k < K; ++k)
                Store<L, Storage::kUInt32>::template set<kInPairs<L>>(out + k * 4 * L::kBlocks, words[k]);
        }
    };
};

// The words of K sets from block_lo on.
template <class L, int K, bool kInPairs>
WI_FN void words_of(uint32_t block_lo, const PhiloxSpan<typename L::U>& span, typename L::U words[][4]) {
    typename Packed<L, K>::U block, w[4];
    WI_UNROLL for (int k = 0; k < K; ++k) block.v[k] = L::lane_blocks() + typename L::U(block_lo + uint32_t(k * L::kBlocks));
    if constexpr (kInPairs)
        philox4x32_10_pairs(block, span, w);
    else
        philox4x32_10(block, span, w);
    WI_UNROLL for (int k = 0; k < K; ++k) {
        WI_UNROLL for (int i = 0; i < 4; ++i) words[k][i] = w[i].v[k];
    }
}

template <class L, class Values>
struct Run {
    using Type = typename Values::Type;
    using Span = PhiloxSpan<uint32_t>;
    using Spread = PhiloxSpan<typename L::U>;
    static constexpr bool kInPairs = Values::template kInPairs<L>;
    static constexpr int kTileSets = kTileBlocks / L::kBlocks;
    static constexpr int kSetValues = L::kBlocks * Values::kPerBlock;
    static constexpr int kStepBlocks = kStepSets * L::kBlocks, kStepValues = kStepSets * kSetValues;
    static constexpr int kPackValues = kPhiloxPack * kSetValues;  // of one step of Philox
    static_assert(kTileSets % kStepSets == 0);

    // Whole steps are the part that matters for speed. Their memory is fetched while words are made: fills beyond the caches are up
    // to 1.45 times as fast.
    static void in_tiles(Type* out, uint32_t block_lo, uint64_t sets, const Span& span, const Transform& transform) {
        const Spread spread(span);
        const typename Values::template On<L, kTransformPack> values(transform);
        alignas(64) typename L::U words[kTileSets][4];
        while (sets > 0) {
            const uint64_t tile = sets < uint64_t(kTileSets) ? sets : uint64_t(kTileSets);
            for (uint64_t s = 0; s < tile; s += kPhiloxPack) {
                words_of<L, kPhiloxPack, kInPairs>(block_lo + uint32_t(s) * L::kBlocks, spread, words + s);
                prefetch(out + s * kSetValues);
            }
            uint64_t done = 0;
            do values(words + done, out + done * kSetValues);
            while ((done += kTransformPack) < tile);
            out += tile * kSetValues;
            block_lo += uint32_t(tile) * L::kBlocks;
            sets -= tile;
        }
    }

    static void at_once(Type* out, uint32_t block_lo, uint64_t sets, const Span& span, const Transform& transform) {
        const Spread spread(span);
        const typename Values::template On<L, kPhiloxPack> values(transform);
        for (; sets > 0; sets -= kPhiloxPack, out += kPackValues, block_lo += uint32_t(kPhiloxPack * L::kBlocks)) {
            typename L::U words[kPhiloxPack][4];
            words_of<L, kPhiloxPack, kInPairs>(block_lo, spread, words);
            values(words, out);
            prefetch(out + kAhead / int(sizeof(Type)));
        }
    }

    WI_FN void prefetch(const Type* memory) {  // where the values of one step of Philox go
        const char* const lines = reinterpret_cast<const char*>(memory);
        WI_UNROLL for (int i = 0; i < kPackValues * int(sizeof(Type)); i += 64) __builtin_prefetch(lines + i, 1);
    }

    static void set(Type* out, uint32_t block_lo, const Span& span, const Transform& transform) {
        alignas(64) typename L::U words[1][4];
        words_of<L, 1, kInPairs>(block_lo, Spread(span), words);
        const typename Values::template On<L, 1> values(transform);
        values(words, out);
    }

    static void run(void* memory, uint64_t index, uint64_t n, const Transform& transform, const Draw& draw) {
        Type* out = static_cast<Type*>(memory);
        while (n > 0) {  // once a span: 2^32 blocks
            uint64_t block = index / Values::kPerBlock;
            const Span span(draw.seed, draw.stream, uint32_t(block >> 32));
            uint64_t blocks = (uint64_t(1) << 32) - uint32_t(block);  // left in this span
            while (n > 0 && blocks > 0) {
                const uint64_t skip = index % Values::kPerBlock;
                uint64_t written;
                if (skip == 0 && n >= uint64_t(kStepValues) && blocks >= uint64_t(kStepBlocks)) {
                    const uint64_t by_values = n / kStepValues, by_blocks = blocks / kStepBlocks;
                    const uint64_t count = by_values < by_blocks ? by_values : by_blocks;
                    if constexpr (Values::template kInRegisters<L>)
                        at_once(out, uint32_t(block), count * kStepSets, span, transform);
                    else
                        in_tiles(out, uint32_t(block), count * kStepSets, span, transform);
                    written = count * kStepValues;
                } else if (skip == 0 && n >= uint64_t(kSetValues) && blocks >= uint64_t(L::kBlocks)) {
                    set(out, uint32_t(block), span, transform);
                    written = kSetValues;
                } else {  // a part of a set, or a set that the span ends in
                    alignas(64) Type buffer[kSetValues];
                    set(buffer, uint32_t(block), span, transform);
                    const uint64_t usable = (blocks < uint64_t(L::kBlocks) ? blocks : uint64_t(L::kBlocks)) * Values::kPerBlock - skip;
                    written = n < usable ? n : usable;
                    memcpy(out, buffer + skip, written * sizeof(Type));
                }
                out += written;
                index += written;
                n -= written;
                const uint64_t next = index / Values::kPerBlock;
                blocks -= next - block;
                block = next;
            }
        }
    }
};

template <class F, class U>
using Uniform32Open = Uniform32<F, U, false>;
template <class F, class U>
using Uniform32Clamped = Uniform32<F, U, true>;

template <class L, Storage kStorage>
RunFn find_run32(Kind kind) {
    switch (kind) {
        case Kind::kUniform: return Run<L, Values32<Uniform32Open, kStorage>>::run;
        case Kind::kUniformClamped: return Run<L, Values32<Uniform32Clamped, kStorage>>::run;
        case Kind::kNormal: return Run<L, Values32<Normal32, kStorage>>::run;
        case Kind::kTruncNormalCentral: return Run<L, Values32<TruncNormalCentral32, kStorage>>::run;
        case Kind::kTruncNormal: return Run<L, Values32<TruncNormal32, kStorage>>::run;
        default: return nullptr;
    }
}

template <class L>
RunFn find_run64(Kind kind) {
    switch (kind) {
        case Kind::kUniform:
        case Kind::kUniformClamped: return Run<L, Values64<Uniform64>>::run;
        case Kind::kNormal: return Run<L, Values64<Normal64>>::run;
        case Kind::kTruncNormal: return Run<L, Values64<TruncNormal64>>::run;
        default: return nullptr;
    }
}

// The kernel of this ISA for a kind and storage; null where there is none.
template <class L>
RunFn find_run(Kind kind, Storage storage) {
    switch (storage) {
        case Storage::kFloat32: return find_run32<L, Storage::kFloat32>(kind);
        case Storage::kFloat16: return find_run32<L, Storage::kFloat16>(kind);
        case Storage::kBFloat16: return find_run32<L, Storage::kBFloat16>(kind);
        case Storage::kFloat8E4M3: return find_run32<L, Storage::kFloat8E4M3>(kind);
        case Storage::kFloat8E5M2: return find_run32<L, Storage::kFloat8E5M2>(kind);
        case Storage::kFloat64: return find_run64<L>(kind);
        case Storage::kUInt32: return kind == Kind::kBits ? Run<L, Words>::run : nullptr;
        default: return nullptr;
    }
}

}  // namespace WI_ISA
}  // namespace wi
