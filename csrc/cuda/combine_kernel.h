// The kernel that combines: as the one in fill_kernel.h it takes tiles of a table's jobs, but reads the elements that are there
// (docs/numerics.md, section 5). A thread makes one Philox block, reads the block's elements, writes them. One body for all
// kinds, storages and layouts, chosen block by block: memory is the limit here, and the fills' own kernel stays as it is.
// Compiled by nvcc, and by g++ for the emulation in tests/native/.
#pragma once
#include "../core/combine.h"
#include "programs.h"
#include "tiles.h"

namespace wi {
namespace WI_ISA {

// Elements packed into words, and back. A NaN becomes the quiet one; sums of numbers are NaN where one of them is, and hardly ever
// else: only then each is looked at.
template <Storage kStorage>
WI_KERNEL_FN void pack_elements(const float x[4], uint32_t* words) {
    constexpr int kBits = 8 * item_size(kStorage);
    const float sum = (x[0] + x[1]) + (x[2] + x[3]);
    if (sum == sum) return PackWords<kStorage>::pack(x, words);
    float numbers[4];  // 0 for NaN
    WI_UNROLL for (int i = 0; i < 4; ++i) numbers[i] = x[i] == x[i] ? x[i] : 0.0f;
    PackWords<kStorage>::pack(numbers, words);
    WI_UNROLL for (int i = 0; i < 4; ++i)
        if (x[i] != x[i]) words[i * kBits / 32] |= Element<Scalar, kStorage>::kNaN << (i * kBits % 32);
}

template <Storage kStorage>
WI_KERNEL_FN void unpack_elements(const uint32_t* words, float x[4]) {
    constexpr int kBits = 8 * item_size(kStorage);
    WI_UNROLL for (int i = 0; i < 4; ++i) {
        const uint32_t bits = words[i * kBits / 32] >> (i * kBits % 32) & (~0u >> (32 - kBits));
        x[i] = kStorage == Storage::kFloat16 ? float16_value(bits) : Element<Scalar, kStorage>::value(bits);
    }
}

// The elements of a block meet the values that are made for them, float32 or float64.
template <Storage kStorage>
struct Meeting {
    using Value = float;
    static constexpr int kPerBlock = 4, kWords = item_size(kStorage);
    WI_KERNEL_FN static void combine(const Combine& how, const float made[4], uint32_t* words) {
        float x[4], v[4];
        unpack_elements<kStorage>(words, x);
        if (how.mode == Mode::kAdd) {
            WI_UNROLL for (int i = 0; i < 4; ++i) x[i] = combined32<Mode::kAdd>(x[i], made[i], 0.0f);
        } else {
            uint32_t rounded[kWords];
            pack_elements<kStorage>(made, rounded);
            unpack_elements<kStorage>(rounded, v);
            WI_UNROLL for (int i = 0; i < 4; ++i) x[i] = combined32<Mode::kLerp>(x[i], v[i], float(how.weight));
        }
        pack_elements<kStorage>(x, words);
    }
};

template <>
struct Meeting<Storage::kFloat64> {
    using Value = double;
    static constexpr int kPerBlock = 2, kWords = 4;
    WI_KERNEL_FN static void combine(const Combine& how, const double made[2], uint32_t* words) {
        WI_UNROLL for (int i = 0; i < 2; ++i) {
            const double x = as_float(uint64_t(words[2 * i + 1]) << 32 | words[2 * i]);
            const double y = how.mode == Mode::kAdd ? combined64<Mode::kAdd>(x, made[i], 0.0)
                                                    : combined64<Mode::kLerp>(x, made[i], how.weight);
            const uint64_t bits = as_bits(quiet_nan64<double, uint64_t>(y));
            words[2 * i] = uint32_t(bits);
            words[2 * i + 1] = uint32_t(bits >> 32);
        }
    }
};

// The value of an element's bits in the type in which constants come.
WI_KERNEL_FN float value_of(Storage storage, uint32_t bits) {
    switch (storage) {
        case Storage::kFloat16: return Element<Scalar, Storage::kFloat16>::value(bits);
        case Storage::kBFloat16: return Element<Scalar, Storage::kBFloat16>::value(bits);
        case Storage::kFloat8E4M3: return Element<Scalar, Storage::kFloat8E4M3>::value(bits);
        case Storage::kFloat8E5M2: return Element<Scalar, Storage::kFloat8E5M2>::value(bits);
        default: return as_float(bits);
    }
}

template <bool kOneHot>
WI_KERNEL_FN void make_pattern32(const CudaJob& job, Storage made, uint64_t block, float v[4]) {
    const BlockPattern<uint32_t, kOneHot> pattern(job);
    WI_UNROLL for (int i = 0; i < 4; ++i) v[i] = value_of(made, pattern.element(block * 4 + uint64_t(i)));
}

template <bool kOneHot>
WI_KERNEL_FN void make_pattern64(const CudaJob& job, uint64_t block, double v[2]) {
    const BlockPattern<uint64_t, kOneHot> pattern(job);
    WI_UNROLL for (int i = 0; i < 2; ++i) v[i] = as_float(pattern.element(block * 2 + uint64_t(i)));
}

WI_KERNEL_FN void make(const CudaJob& job, Storage made, uint64_t block, const uint32_t w[4], float v[4]) {
    if (job.kind == int(Kind::kConstant)) return make_pattern32<false>(job, made, block, v);
    if (job.kind == int(Kind::kOneHot)) return make_pattern32<true>(job, made, block, v);
    make_values(job, w, v);
}

WI_KERNEL_FN void make(const CudaJob& job, Storage, uint64_t block, const uint32_t w[4], double v[2]) {
    if (job.kind == int(Kind::kConstant)) return make_pattern64<false>(job, block, v);
    if (job.kind == int(Kind::kOneHot)) return make_pattern64<true>(job, block, v);
    make_values(job, w, v);
}

// Those elements of a block that lie in the stretch; all at once where they are consecutive and aligned.
template <Storage kStorage>
WI_KERNEL_FN void combine_elements(const CudaJob& job, const Combine& how, const Stretch& stretch, const Piece& piece,
                                   const typename Meeting<kStorage>::Value* made) {
    using M = Meeting<kStorage>;
    constexpr int kSize = item_size(kStorage), kBits = 8 * kSize;
    using Bits = typename BitsOf<kSize>::Type;
    Words<M::kWords> elements;
    const bool whole = is_whole(stretch, piece);
    if (whole && is_vector<kSize, sizeof elements>(job, piece)) {
        Words<M::kWords>* const memory = reinterpret_cast<Words<M::kWords>*>(piece.address);
        elements = *memory;
        M::combine(how, made, elements.word);
        *memory = elements;
        return;
    }
    const auto each_element = [&](const auto& use) {
        if (whole) return all_elements<kSize>(job, piece, use);
        some_elements<kSize>(job, stretch, piece, use);
    };
    WI_UNROLL for (int i = 0; i < M::kWords; ++i) elements.word[i] = 0;
    each_element([&](int i, uint64_t address) {
        const Bits bits = *reinterpret_cast<const Bits*>(address);
        elements.word[i * kBits / 32] |= uint32_t(bits) << (i * kBits % 32);
        if constexpr (kSize == 8) elements.word[2 * i + 1] = uint32_t(bits >> 32);
    });
    M::combine(how, made, elements.word);
    each_element([&](int i, uint64_t address) {
        uint64_t bits = elements.word[i * kBits / 32] >> (i * kBits % 32);
        if constexpr (kSize == 8) bits |= uint64_t(elements.word[2 * i + 1]) << 32;
        *reinterpret_cast<Bits*>(address) = Bits(bits);
    });
}

template <Storage kStorage>
WI_KERNEL_FN void combine_block(const CudaJob& job, const Combine& how, RandomWords<item_size(kStorage)>& random,
                                const Stretch& stretch, const Piece& piece) {
    uint32_t w[4];
    random.of_block(job, piece.block, w);
    typename Meeting<kStorage>::Value made[4];
    make(job, made_storage(how.mode, kStorage), piece.block, w, made);
    combine_elements<kStorage>(job, how, stretch, piece, made);
}

// ---- whole tiles ---------------------------------------------------------------------------------------------------------

WI_KERNEL_FN Vector16 load(const Vector16* memory) {
#if defined(__CUDA_ARCH__)
    Vector16 v;
    asm volatile("ld.global.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3]) : "l"(memory) : "memory");
    return v;
#else
    return *memory;
#endif
}

// As the Tile of fill_kernel.h, for elements of 2 and 4 bytes.
template <class Distribution, Storage kStorage>
struct CombiningTile {
    static constexpr int kWords = item_size(kStorage), kBlocks = 4 / kWords;  // words of a block, blocks of a group

    // So many bytes of whole and aligned tiles, in one span of 2^32 blocks.
    WI_KERNEL_FN static void whole(const CudaJob& job, const Combine& how, const WholeTiles& tiles) {
        const Distribution values(job);
        PhiloxSpan<uint32_t> span(job.seed, job.stream, uint32_t(tiles.block >> 32));
        keep(span);
        uint64_t product = mul_wide(uint32_t(tiles.block) + threadIdx.x * uint32_t(kBlocks), kPhiloxM0);
        const uint32_t bytes = tiles.bytes();
#pragma unroll 1
        for (uint32_t at = threadIdx.x * 16; at < bytes; at += kThreads * 16) {
            Vector16* const memory = at_offset(tiles.address, at);
            Vector16 v = load(memory);
            WI_UNROLL for (int j = 0; j < kBlocks; ++j) {
                const uint64_t p = product + uint64_t(kPhiloxM0) * uint64_t(j);
                uint32_t w[4];
                philox4x32_10_from(HiLo<uint32_t>{uint32_t(p >> 32), uint32_t(p)}, span, w);
                float made[4];
                values(w, made);
                Meeting<kStorage>::combine(how, made, v.word + j * kWords);
            }
            store(memory, v);
            product += uint64_t(kPhiloxM0) * (kThreads * kBlocks);
        }
    }
};

// False: there is no such loop for the job's kind.
template <Storage kStorage>
WI_KERNEL_FN bool combine_whole(const CudaJob& job, const Combine& how, const WholeTiles& tiles) {
    switch (job.kind) {
        case int(Kind::kUniform): CombiningTile<Uniform32Open<float, uint32_t>, kStorage>::whole(job, how, tiles); return true;
        case int(Kind::kUniformClamped): CombiningTile<Uniform32Clamped<float, uint32_t>, kStorage>::whole(job, how, tiles); return true;
        case int(Kind::kNormal): CombiningTile<Normal32<float, uint32_t>, kStorage>::whole(job, how, tiles); return true;
        case int(Kind::kTruncNormalCentral): CombiningTile<TruncNormalCentral32<float, uint32_t>, kStorage>::whole(job, how, tiles); return true;
        default: return false;
    }
}

template <Storage kStorage>
WI_KERNEL_FN void combine_tiles(const CudaJob& job, const Combine& how, uint32_t& tile, uint32_t last) {
    constexpr int kSize = item_size(kStorage);
    const uint32_t at = tile - job.first_tile;
    uint32_t most = last - tile < kMostTiles ? last - tile : kMostTiles;
    if constexpr (kSize == 2 || kStorage == Storage::kFloat32) {
        if (job.layout == Layout::kAligned) {
            const WholeTiles whole = whole_tiles<kSize>(job, at, most);
            if (whole.tiles != 0 && combine_whole<kStorage>(job, how, whole)) {
                tile += whole.tiles;
                return;
            }
            if (whole.tiles == 0) most = 1;
        }
    }
    tile += most;
    each_block<kSize>(job, at, most,
                      [&](const CudaJob& same, RandomWords<kSize>& random, const Stretch& stretch, const Piece& piece) {
                          combine_block<kStorage>(same, how, random, stretch, piece);
                      });
}

struct CombineTiles {  // not a lambda, which nvcc might call instead of inlining it
    const Combine& how;
    WI_MEMBER void operator()(const CudaJob& job, uint32_t& tile, uint32_t last) const {
        switch (Storage(job.storage)) {
            case Storage::kFloat64: return combine_tiles<Storage::kFloat64>(job, how, tile, last);
            case Storage::kFloat32: return combine_tiles<Storage::kFloat32>(job, how, tile, last);
            case Storage::kFloat16: return combine_tiles<Storage::kFloat16>(job, how, tile, last);
            case Storage::kBFloat16: return combine_tiles<Storage::kBFloat16>(job, how, tile, last);
            case Storage::kFloat8E4M3: return combine_tiles<Storage::kFloat8E4M3>(job, how, tile, last);
            default: return combine_tiles<Storage::kFloat8E5M2>(job, how, tile, last);
        }
    }
};

constexpr int kCombiningBlocks = 3;  // on a multiprocessor: a fourth would leave too few registers for float64

#if defined(WI_EMULATED)
inline void
#else
__global__ void __launch_bounds__(kThreads, kCombiningBlocks)
#endif
    combine_kernel(const WI_GRID_CONSTANT CombineTable parameters) {
    each_share(parameters.table, CombineTiles{parameters.how});
}

}  // namespace WI_ISA
}  // namespace wi
