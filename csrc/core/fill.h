// Runs: n consecutive elements of the global tensor, from any index, into consecutive memory. Everything an evaluator of one
// ISA consists of; which kernel, which memory and which thread is decided above (cpu/dispatch.cpp).
// Tiles of words are made first and transformed after: the two halves then each fit the register file.
#pragma once
#include "convert.h"
#include "distributions.h"
#include "pack.h"
#include "philox.h"

namespace wi {

namespace WI_ISA {

constexpr int kTileBlocks = 192;                   // 3 KiB of words, in L1 whatever else is there
constexpr int kPhiloxPack = WI_PHILOX_PACK;        // sets that go through Philox together
constexpr int kTransformPack = WI_TRANSFORM_PACK;  // sets that go through a transform together

// How one set (L::kBlocks blocks, as planes of words) or a Pack of K sets becomes elements.
template <template <class, class> class Distribution, Storage kStorage>
struct Values32 {
    using Type = typename Store<Scalar, kStorage>::Type;
    static constexpr int kPerBlock = 4;
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
                Store<L, kStorage>::planes(out + k * 4 * L::kBlocks, set);
            }
        }
    };
};

template <template <class, class> class Distribution>
struct Values64 {
    using Type = double;
    static constexpr int kPerBlock = 2;
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
                L::widen(words[k][0], words[k][1], even);
                L::widen(words[k][2], words[k][3], odd);
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
    template <class L, int K>
    struct On {
        WI_MEMBER explicit On(const Transform&) {}
        WI_MEMBER void operator()(const typename L::U words[][4], Type* out) const {
            WI_UNROLL for (int k = 0; k < K; ++k) Store<L, Storage::kUInt32>::planes(out + k * 4 * L::kBlocks, words[k]);
        }
    };
};

// The words of K sets from block_lo on.
template <class L, int K>
WI_FN void words_of(uint32_t block_lo, const PhiloxSpan<typename L::U>& span, typename L::U words[][4]) {
    typename Packed<L, K>::U block, w[4];
    WI_UNROLL for (int k = 0; k < K; ++k) block.v[k] = L::lane_blocks() + typename L::U(block_lo + uint32_t(k * L::kBlocks));
    philox4x32_10(block, span, w);
    WI_UNROLL for (int k = 0; k < K; ++k) {
        WI_UNROLL for (int i = 0; i < 4; ++i) words[k][i] = w[i].v[k];
    }
}

template <class L, class Values>
struct Run {
    using Type = typename Values::Type;
    using Span = PhiloxSpan<typename L::U>;
    static constexpr int kTileSets = kTileBlocks / L::kBlocks;
    static constexpr int kSetValues = L::kBlocks * Values::kPerBlock;
    static constexpr int kTileValues = kTileBlocks * Values::kPerBlock;
    static constexpr int kStepBytes = kPhiloxPack * kSetValues * int(sizeof(Type));  // of memory, for one step of Philox

    // Whole tiles, the part that matters for speed. The memory that a tile goes to is fetched while its words are made: fills
    // beyond the caches are up to 1.45 times as fast.
    static void tiles(Type* out, uint32_t block_lo, uint64_t count, const Span& span, const Transform& transform) {
        const typename Values::template On<L, kTransformPack> values(transform);
        alignas(64) typename L::U words[kTileSets][4];
        for (uint64_t t = 0; t < count; ++t, out += kTileValues, block_lo += kTileBlocks) {
            for (int s = 0; s < kTileSets; s += kPhiloxPack) {
                words_of<L, kPhiloxPack>(block_lo + uint32_t(s * L::kBlocks), span, words + s);
                const char* const lines = reinterpret_cast<const char*>(out + s * kSetValues);
                WI_UNROLL for (int i = 0; i < kStepBytes; i += 64) __builtin_prefetch(lines + i, 1);
            }
            for (int s = 0; s < kTileSets; s += kTransformPack) values(words + s, out + s * kSetValues);
        }
    }

    static void set(Type* out, uint32_t block_lo, const Span& span, const Transform& transform) {
        alignas(64) typename L::U words[1][4];
        words_of<L, 1>(block_lo, span, words);
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
                if (skip == 0 && n >= uint64_t(kTileValues) && blocks >= uint64_t(kTileBlocks)) {
                    const uint64_t by_values = n / kTileValues, by_blocks = blocks / kTileBlocks;
                    const uint64_t count = by_values < by_blocks ? by_values : by_blocks;
                    tiles(out, uint32_t(block), count, span, transform);
                    written = count * kTileValues;
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
