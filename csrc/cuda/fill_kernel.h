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

struct alignas(16) Vector16 {
    uint32_t word[4];
};

WI_KERNEL_FN void store(Vector16* out, const Vector16& v) {
#if defined(__CUDA_ARCH__)  // to global memory, which nvcc cannot know of an address that comes in a table
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(out), "r"(v.word[0]), "r"(v.word[1]), "r"(v.word[2]),
                 "r"(v.word[3])
                 : "memory");
#else
    *out = v;
#endif
}

// base + offset. The plain sum becomes a pointer that is carried along, and copied before each store that is still reading it.
WI_KERNEL_FN Vector16* at_offset(uint64_t base, uint32_t offset) {
#if defined(__CUDA_ARCH__)
    uint64_t address;
    asm("mad.wide.u32 %0, %1, 1, %2;" : "=l"(address) : "r"(offset), "l"(base));
    return reinterpret_cast<Vector16*>(address);
#else
    return reinterpret_cast<Vector16*>(base + offset);
#endif
}

// The round keys are sums with constants; without this nvcc makes them again in every iteration.
WI_KERNEL_FN void keep(PhiloxSpan<uint32_t>& span) {
#if defined(__CUDA_ARCH__)
    WI_UNROLL for (int r = 0; r < 10; ++r) asm("" : "+r"(span.key0[r]), "+r"(span.key1[r]));
#else
    (void)span;
#endif
}

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

    // All groups of a tile, whole and aligned, in one span of 2^32 blocks.
    WI_KERNEL_FN static void whole(const CudaJob& job, uint64_t first_group_byte, uint64_t first_block) {
        const Values values(job);
        PhiloxSpan<uint32_t> span(job.seed, job.stream, uint32_t(first_block >> 32));
        if (sizeof(Element) < 8) keep(span);  // float64 needs the registers
        uint64_t block = first_block + threadIdx.x * uint32_t(kBlocks);
        uint64_t product = mul_wide(uint32_t(block), kPhiloxM0);
#pragma unroll 1
        for (uint32_t at = threadIdx.x * 16; at < kTileGroups * 16; at += kUnroll * kThreads * 16) {
            Vector16* const out = at_offset(first_group_byte, at);
            WI_UNROLL for (int u = 0; u < kUnroll; ++u) {
                Vector16 v;
                group(values, span, product, block, v.word);
                store(out + u * kThreads, v);
                product += uint64_t(kPhiloxM0) * (kThreads * kBlocks);
                block += kThreads * kBlocks;
            }
        }
    }
};

WI_HOST_DEVICE constexpr int program_of(Kind kind, Storage storage) { return int(kind) * kStorages + int(storage); }

// A whole tile of the job's program; nothing where there is no such program.
template <Storage kStorage>
WI_KERNEL_FN void whole32(const CudaJob& job, uint64_t address, uint64_t block) {
    switch (job.program) {
        case program_of(Kind::kUniform, kStorage): return Tile<Block32<Uniform32Open, kStorage>>::whole(job, address, block);
        case program_of(Kind::kUniformClamped, kStorage): return Tile<typename BlockUniformClamped<kStorage>::Type>::whole(job, address, block);
        case program_of(Kind(kUniformWide), kStorage): return Tile<Block32<UniformWide32, kStorage>>::whole(job, address, block);
        case program_of(Kind::kNormal, kStorage): return Tile<Block32<Normal32, kStorage>>::whole(job, address, block);
        case program_of(Kind::kTruncNormalCentral, kStorage): return Tile<Block32<TruncNormalCentral32, kStorage>>::whole(job, address, block);
        case program_of(Kind::kTruncNormal, kStorage): return Tile<Block32<TruncNormal32, kStorage>>::whole(job, address, block);
    }
}

WI_KERNEL_FN void whole64(const CudaJob& job, uint64_t address, uint64_t block) {
    switch (job.program) {
        case program_of(Kind::kUniform, Storage::kFloat64):
        case program_of(Kind::kUniformClamped, Storage::kFloat64): return Tile<Block64<Uniform64>>::whole(job, address, block);
        case program_of(Kind::kNormal, Storage::kFloat64): return Tile<Block64<Normal64>>::whole(job, address, block);
        case program_of(Kind::kTruncNormal, Storage::kFloat64): return Tile<Block64<TruncNormal64>>::whole(job, address, block);
    }
}

template <int kSize>
WI_KERNEL_FN void whole_tile(const CudaJob& job, uint64_t address, uint64_t block) {
    using Bits = typename BitsOf<kSize>::Type;
    if (job.program / kStorages == int(Kind::kConstant)) return Tile<BlockPattern<Bits, false>>::whole(job, address, block);
    if (job.program / kStorages == int(Kind::kOneHot)) return Tile<BlockPattern<Bits, true>>::whole(job, address, block);
    if constexpr (kSize == 1) {
        whole32<Storage::kFloat8E4M3>(job, address, block);
        whole32<Storage::kFloat8E5M2>(job, address, block);
    } else if constexpr (kSize == 2) {
        whole32<Storage::kFloat16>(job, address, block);
        whole32<Storage::kBFloat16>(job, address, block);
    } else if constexpr (kSize == 4) {
        if (job.program == program_of(Kind::kBits, Storage::kUInt32)) return Tile<BlockBits>::whole(job, address, block);
        whole32<Storage::kFloat32>(job, address, block);
    } else {
        whole64(job, address, block);
    }
}

// ---- everything else -----------------------------------------------------------------------------------------------------

// The elements of a block, packed into words. False: there is no such program.
template <int kSize>
WI_KERNEL_FN bool block_elements(const CudaJob& job, uint64_t block, uint32_t out[4]) {
    using Bits = typename BitsOf<kSize>::Type;
    const Storage storage = Storage(job.program % kStorages);
    if (job.program / kStorages == int(Kind::kConstant)) {
        BlockPattern<Bits, false>{job}(nullptr, block, out);
        return true;
    }
    if (job.program / kStorages == int(Kind::kOneHot)) {
        BlockPattern<Bits, true>{job}(nullptr, block, out);
        return true;
    }
    uint32_t w[4];
    words_of_block(job, block, w);
    if (kSize == 4 && job.program == program_of(Kind::kBits, Storage::kUInt32)) {
        WI_UNROLL for (int i = 0; i < 4; ++i) out[i] = w[i];
        return true;
    }
    if constexpr (kSize == 8) {
        double x[2];
        if (storage != Storage::kFloat64 || !make_values(job, w, x)) return false;
        WI_UNROLL for (int i = 0; i < 2; ++i) {
            out[2 * i] = uint32_t(as_bits(x[i]));
            out[2 * i + 1] = uint32_t(as_bits(x[i]) >> 32);
        }
        return true;
    } else {
        float x[4];
        if (!make_values(job, w, x)) return false;
        switch (storage) {
            case Storage::kFloat32: PackWords<Storage::kFloat32>::pack(x, out); return true;
            case Storage::kFloat16: PackWords<Storage::kFloat16>::pack(x, out); return true;
            case Storage::kBFloat16: PackWords<Storage::kBFloat16>::pack(x, out); return true;
            case Storage::kFloat8E4M3: PackWords<Storage::kFloat8E4M3>::pack(x, out); return true;
            case Storage::kFloat8E5M2: PackWords<Storage::kFloat8E5M2>::pack(x, out); return true;
            default: return false;
        }
    }
}

// Those elements of a block that lie in the stretch.
template <int kSize>
WI_KERNEL_FN void store_block(const CudaJob& job, const Stretch& stretch, uint64_t block) {
    using Bits = typename BitsOf<kSize>::Type;
    constexpr int kPerBlock = kSize == 8 ? 2 : 4;
    uint32_t words[4] = {};
    if (!block_elements<kSize>(job, block, words)) return;
    const uint64_t n = block * uint64_t(kPerBlock) - stretch.first, count = stretch.end - stretch.first;  // n wraps before first
    WI_UNROLL for (int i = 0; i < kPerBlock; ++i) {  // words are registers
        if (n + uint64_t(i) >= count) continue;
        const int bit = i * kSize * 8;
        uint64_t bits = words[bit / 32] >> (bit % 32);
        if constexpr (kSize == 8) bits |= uint64_t(words[2 * i + 1]) << 32;
        *reinterpret_cast<Bits*>(address_of(job, stretch, n + uint64_t(i), kSize)) = Bits(bits);
    }
}

template <int kSize>
WI_KERNEL_FN void fill_tile(const CudaJob& job, uint32_t tile) {
    constexpr uint64_t kPerBlock = kSize == 8 ? 2 : 4, kGroup = kSize == 8 ? 2 : 16 / kSize;
    if (job.layout == Layout::kLinear && job.aligned) {
        const uint64_t start = job.index / kGroup * kGroup;  // the first group begins here
        const uint64_t first = start + uint64_t(tile) * (kTileGroups * kGroup), end = first + kTileGroups * kGroup;
        const uint64_t block = first / kPerBlock;
        if (first >= job.index && end <= job.index + job.count && block >> 32 == (end - 1) / kPerBlock >> 32)
            return whole_tile<kSize>(job, job.data + (first - job.index) * kSize, block);
    }
    each_block(job, tile, store_block<kSize>);
}

#if defined(WI_EMULATED)
template <int kSize>
inline void
#else
template <int kSize>
__global__ void __launch_bounds__(kThreads, kResidentBlocks)
#endif
    fill_kernel(const WI_GRID_CONSTANT CudaTable table) {
    for (uint32_t tile = blockIdx.x; tile < table.tiles; tile += gridDim.x) {
        const CudaJob& job = job_of(table, tile);
        fill_tile<kSize>(job, tile - job.first_tile);
    }
}

}  // namespace WI_ISA
}  // namespace wi
