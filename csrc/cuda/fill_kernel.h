// The kernels that fill: one for each size of an element, so that they compile side by side and a GPU loads only what it needs. One
// launch fills any number of tensors. Each block takes tiles of the table's jobs; each thread makes groups of 16 bytes from whole
// Philox blocks and stores them at once: a loop without a check of any kind, compiled for every program. The first and the last
// tile of a tensor, and tensors that are not consecutive, take the careful path: one for all programs. Values do not depend on the
// grid. Compiled by nvcc in fill_<bits>bit.cu, and by g++ for the emulation in tests/native/.
#pragma once
#include "programs.h"
#include "tiles.h"

namespace wi {
namespace WI_ISA {

// ---- whole tiles ---------------------------------------------------------------------------------------------------------

template <class Values>
struct Tile {
    using Element = typename Values::Element;
    static constexpr int kBlocks = 4 / Values::kWords;                           // Philox blocks of a group
    static constexpr int kGroup = kBlocks * Values::kPerBlock;                   // elements of a group
    static constexpr int kUnroll = kBlocks == 1 && sizeof(Element) < 8 ? 2 : 1;  // groups of an iteration
    static_assert(kBlocks * Values::kWords == 4, "a group is 16 bytes");

    // product: of block's low half and kPhiloxM0. It is carried along by additions, since the multiplier is the scarcest unit.
    WI_KERNEL_FN static void group(const Values& values, const PhiloxSpan<uint32_t>& span, uint64_t product, uint64_t block,
                                   uint32_t out[4]) {
        WI_UNROLL for (int j = 0; j < kBlocks; ++j) {
            const uint64_t p = product + uint64_t(kPhiloxM0) * uint64_t(j);
            uint32_t w[4];
            philox4x32_10_from(HiLo<uint32_t>{uint32_t(p >> 32), uint32_t(p)}, span, w);
            values(w, block + uint64_t(j), out + j * Values::kWords);
        }
    }

    // So many bytes of whole and aligned tiles, in one span of 2^32 blocks.
    WI_KERNEL_FN static void whole(const CudaJob& job, uint64_t address, uint64_t first_block, uint32_t bytes) {
        const Values values(job);
        PhiloxSpan<uint32_t> span(job.seed, job.stream, uint32_t(first_block >> 32));
        if (sizeof(Element) < 8) keep(span);  // float64 needs the registers
        uint64_t block = first_block + threadIdx.x * uint32_t(kBlocks);
        uint64_t product = mul_wide(uint32_t(block), kPhiloxM0);
        const auto next = [&](Vector16* out) {
            Vector16 v;
            group(values, span, product, block, v.word);
            store(out, v);
            product += uint64_t(kPhiloxM0) * (kThreads * kBlocks);
            block += kThreads * kBlocks;
        };
        if constexpr (sizeof(Element) == 8) {  // in one register less
            Vector16* out = reinterpret_cast<Vector16*>(address) + threadIdx.x;
#pragma unroll 1
            for (uint32_t left = bytes; left != 0; left -= kThreads * 16, out += kThreads) next(out);
        } else {
#pragma unroll 1
            for (uint32_t at = threadIdx.x * 16; at < bytes; at += kUnroll * kThreads * 16) {
                Vector16* const out = at_offset(address, at);
                WI_UNROLL for (int u = 0; u < kUnroll; ++u) next(out + u * kThreads);
            }
        }
    }

    // The groups [begin, end) of a region whose rows are whole groups.
    WI_KERNEL_FN static void rows(const CudaJob& job, uint32_t begin, uint32_t end) {
        const Values values(job);
        PhiloxSpan<uint32_t> span(job.seed, job.stream, uint32_t(job.index / uint64_t(Values::kPerBlock) >> 32));
        if (sizeof(Element) < 8) keep(span);
#pragma unroll 1
        for (uint32_t i = begin + threadIdx.x; i < end; i += kThreads) {
            const CudaJob& again = read_again(job);
            const Place place = place_of(again, i);
            const uint64_t block = (again.index + place.index) / uint64_t(Values::kPerBlock);
            Vector16 v;
            group(values, span, mul_wide(uint32_t(block), kPhiloxM0), block, v.word);
            store(reinterpret_cast<Vector16*>(again.data + place.bytes), v);
        }
    }
};

// Calls use(tile) with the Tile of the job's program, whose storage is this one.
template <Storage kStorage, class Use>
WI_KERNEL_FN void with_tile32(const CudaJob& job, const Use& use) {
    switch (job.kind) {
        case int(Kind::kUniform): return use(Tile<Block32<Uniform32Open, kStorage>>());
        case int(Kind::kUniformClamped): return use(Tile<typename BlockUniformClamped<kStorage>::Type>());
        case kUniformWide: return use(Tile<Block32<UniformWide32, kStorage>>());
        case int(Kind::kNormal): return use(Tile<Block32<Normal32, kStorage>>());
        case int(Kind::kTruncNormalCentral): return use(Tile<Block32<TruncNormalCentral32, kStorage>>());
        default: return use(Tile<Block32<TruncNormal32, kStorage>>());
    }
}

template <class Use>
WI_KERNEL_FN void with_tile64(const CudaJob& job, const Use& use) {
    switch (job.kind) {
        case int(Kind::kUniform):
        case int(Kind::kUniformClamped): return use(Tile<Block64<Uniform64>>());
        case int(Kind::kNormal): return use(Tile<Block64<Normal64>>());
        default: return use(Tile<Block64<TruncNormal64>>());
    }
}

template <int kSize, class Use>
WI_KERNEL_FN void with_tile(const CudaJob& job, const Use& use) {
    using Bits = typename BitsOf<kSize>::Type;
    if (job.kind == int(Kind::kConstant)) return use(Tile<BlockPattern<Bits, false>>());
    if (job.kind == int(Kind::kOneHot)) return use(Tile<BlockPattern<Bits, true>>());
    if constexpr (kSize == 1) {
        if (job.storage == int(Storage::kFloat8E4M3)) return with_tile32<Storage::kFloat8E4M3>(job, use);
        with_tile32<Storage::kFloat8E5M2>(job, use);
    } else if constexpr (kSize == 2) {
        if (job.storage == int(Storage::kFloat16)) return with_tile32<Storage::kFloat16>(job, use);
        with_tile32<Storage::kBFloat16>(job, use);
    } else if constexpr (kSize == 4) {
        if (job.kind == int(Kind::kBits)) return use(Tile<BlockBits>());
        with_tile32<Storage::kFloat32>(job, use);
    } else {
        with_tile64(job, use);
    }
}

// ---- everything else -----------------------------------------------------------------------------------------------------

// Values, packed into the words of their storage type.
template <int kSize>
WI_KERNEL_FN void pack(const CudaJob& job, const float x[4], uint32_t out[4]) {
    if constexpr (kSize == 1) {
        if (job.storage == int(Storage::kFloat8E4M3)) return PackWords<Storage::kFloat8E4M3>::pack(x, out);
        return PackWords<Storage::kFloat8E5M2>::pack(x, out);
    } else if constexpr (kSize == 2) {
        if (job.storage == int(Storage::kFloat16)) return PackWords<Storage::kFloat16>::pack(x, out);
        return PackWords<Storage::kBFloat16>::pack(x, out);
    } else {
        PackWords<Storage::kFloat32>::pack(x, out);
    }
}

// What is asked of a job's kind for each block, answered once.
struct KindOf {
    bool pattern, normal;
    WI_KERNEL_FN explicit KindOf(const CudaJob& job)
        : pattern(job.kind == int(Kind::kConstant) || job.kind == int(Kind::kOneHot)), normal(job.kind == int(Kind::kNormal)) {}
};

// The elements of a block, packed into words: of a pattern, and of random words.
template <int kSize>
WI_KERNEL_FN void pattern_elements(const CudaJob& job, uint64_t block, uint32_t out[4]) {
    using Bits = typename BitsOf<kSize>::Type;
    if (job.kind == int(Kind::kConstant)) return BlockPattern<Bits, false>{job}(nullptr, block, out);
    BlockPattern<Bits, true>{job}(nullptr, block, out);
}

template <int kSize>
WI_KERNEL_FN void random_elements(const CudaJob& job, bool normal, const uint32_t w[4], uint32_t out[4]) {
    if constexpr (kSize == 8) {
        double x[2];
        make_values(job, w, x);
        WI_UNROLL for (int i = 0; i < 2; ++i) {
            out[2 * i] = uint32_t(as_bits(x[i]));
            out[2 * i + 1] = uint32_t(as_bits(x[i]) >> 32);
        }
    } else {
        float x[4];
        if (normal) {
            Normal32<float, uint32_t>{job}(w, x);
        } else if (kSize == 4 && job.kind == int(Kind::kBits)) {
            WI_UNROLL for (int i = 0; i < 4; ++i) x[i] = as_float(w[i]);
        } else {
            make_values(job, w, x);
        }
        pack<kSize>(job, x, out);
    }
}

// Those elements of a block that lie in the stretch; all at once where they are consecutive and aligned.
template <int kSize>
WI_KERNEL_FN void store_block(const CudaJob& job, KindOf kind, RandomWords<kSize>& random, const Stretch& stretch, const Piece& piece) {
    using Bits = typename BitsOf<kSize>::Type;
    constexpr int kPerBlock = kSize == 8 ? 2 : 4, kWords = kPerBlock * kSize / 4;
    uint32_t words[4] = {};
    if (kind.pattern) {
        pattern_elements<kSize>(job, piece.block, words);
    } else {
        uint32_t w[4];
        random.of_block(job, piece.block, w);
        random_elements<kSize>(job, kind.normal, w, words);
    }
    const auto store_one = [&](int i, uint64_t address) {  // words are registers
        const int bit = i * kSize * 8;
        uint64_t bits = words[bit / 32] >> (bit % 32);
        if constexpr (kSize == 8) bits |= uint64_t(words[2 * i + 1]) << 32;
        *reinterpret_cast<Bits*>(address) = Bits(bits);
    };
    if (!is_whole(stretch, piece)) {
        some_elements<kSize>(job, stretch, piece, store_one);
    } else if (is_vector<kSize, kSize * kPerBlock>(job, piece)) {
        Words<kWords> elements;
        WI_UNROLL for (int i = 0; i < kWords; ++i) elements.word[i] = words[i];
        *reinterpret_cast<Words<kWords>*>(piece.address) = elements;
    } else {
        all_elements<kSize>(job, piece, store_one);
    }
}

// A tile of the launch and some that follow it, up to `last` at most: all of one job. Moves `tile`.
template <int kSize>
WI_KERNEL_FN void fill_tiles(const CudaJob& job, uint32_t& tile, uint32_t last) {
    const uint32_t at = tile - job.first_tile;
    uint32_t most = last - tile;
    if (most > kMostTiles) most = kMostTiles;
    if (job.layout == Layout::kAligned) {
        const WholeTiles whole = whole_tiles<kSize>(job, at, most);
        if (whole.tiles != 0) {
            tile += whole.tiles;
            return with_tile<kSize>(job, [&](auto of) { of.whole(job, whole.address, whole.block, whole.bytes()); });
        }
        most = 1;
    }
    tile += most;
    if (job.layout == Layout::kGroups) {
        const uint32_t begin = at * kTileGroups, end = begin + most * kTileGroups, count = uint32_t(job.count);
        return with_tile<kSize>(job, [&](auto of) { of.rows(job, begin, end < count ? end : count); });
    }
    const KindOf kind(job);
    each_block<kSize>(job, at, most, [&](const CudaJob& same, RandomWords<kSize>& random, const Stretch& stretch, const Piece& piece) {
        store_block<kSize>(same, kind, random, stretch, piece);
    });
}

#if defined(WI_EMULATED)
template <int kSize>
inline void
#else
template <int kSize>
__global__ void __launch_bounds__(kThreads, kResidentBlocks)
#endif
    fill_kernel(const WI_GRID_CONSTANT CudaTable table) {
    each_share(table, fill_tiles<kSize>);
}

}  // namespace WI_ISA
}  // namespace wi
