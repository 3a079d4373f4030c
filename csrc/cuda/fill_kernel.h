// The kernel: one launch fills any number of tensors. Each block takes tiles of the table's jobs; each thread makes groups of
// 16 bytes from whole Philox blocks and stores them at once. The body of a tile has no check of any kind; the first and the last
// tile of a tensor, and tensors that are not consecutive, take the careful path. Values do not depend on the grid.
// Compiled by nvcc, and by g++ for the emulation in tests/native/.
#pragma once
#include "../core/address.h"
#include "../core/convert.h"
#include "../core/distributions.h"
#include "../core/philox.h"
#include "launch.h"

#if defined(WI_EMULATED)
#define WI_KERNEL_FN inline
#else
#define WI_KERNEL_FN __device__ __forceinline__
#endif

namespace wi {
namespace WI_ISA {

struct alignas(16) Vector16 {
    uint32_t word[4];
};

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
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
        asm("max.f16x2 %0, %0, %1;" : "+r"(word) : "r"(lo));
        asm("min.f16x2 %0, %0, %1;" : "+r"(word) : "r"(hi));
        return word;
#else
        return clamp_halves(word, lo, hi);
#endif
    }
    WI_KERNEL_FN static uint32_t two(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
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
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
        asm("max.bf16x2 %0, %0, %1;" : "+r"(word) : "r"(lo));
        asm("min.bf16x2 %0, %0, %1;" : "+r"(word) : "r"(hi));
        return word;
#else
        return clamp_halves(word, lo, hi);
#endif
    }
    WI_KERNEL_FN static uint32_t two(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
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
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890  // to nearest even, beyond the largest value that one, -0 and subnormals kept
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
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
        uint16_t low, high;
        asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(low) : "f"(x[1]), "f"(x[0]));
        asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(high) : "f"(x[3]), "f"(x[2]));
        words[0] = low | uint32_t(high) << 16;
#else
        words[0] = four_float8<2, 15>(x, 57344.0f);
#endif
    }
};

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
        : uniform(job), lo(PackWords<kStorage>::two(job.f32(2), job.f32(2))), hi(PackWords<kStorage>::two(job.f32(3), job.f32(3))) {}
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

WI_KERNEL_FN void store(Vector16* out, const Vector16& v) {
#if defined(__CUDA_ARCH__)  // to global memory, which nvcc cannot know of an address that comes in a table
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(out), "r"(v.word[0]), "r"(v.word[1]), "r"(v.word[2]), "r"(v.word[3])
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

// Of job, but nothing that was read before is held in registers for it: where speed matters less than room.
WI_KERNEL_FN const CudaJob& read_again(const CudaJob& job) {
    const CudaJob* address = &job;
#if defined(__CUDA_ARCH__)
    asm volatile("" : "+l"(address));
#endif
    return *address;
}

template <class Values>
struct Tile {
    using Element = typename Values::Element;
    static constexpr int kBlocks = 4 / Values::kWords;                   // Philox blocks of a group
    static constexpr int kGroup = kBlocks * Values::kPerBlock;           // elements of a group
    static constexpr int kUnroll = kBlocks == 1 && sizeof(Element) < 8 ? 2 : 1;  // groups of an iteration
    static_assert(kBlocks * Values::kWords == 4, "a group is 16 bytes");

    // product: of block's low half and kPhiloxM0. It is carried along by additions, since the multiplier is the scarcest unit.
    WI_KERNEL_FN static void group(const Values& values, const PhiloxSpan<uint32_t>& span, uint64_t product, uint64_t block, uint32_t out[4]) {
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

    WI_KERNEL_FN static Element element_of(const uint32_t* words, int i) {
        if constexpr (sizeof(Element) == 8) {
            return bit_cast_scalar<Element>(uint64_t(words[2 * i + 1]) << 32 | words[2 * i]);
        } else if constexpr (sizeof(Element) == 4) {
            return bit_cast_scalar<Element>(words[i]);
        } else {
            const int bit = i * int(sizeof(Element)) * 8;
            return Element(words[bit / 32] >> (bit % 32));
        }
    }

    // One Philox block: elements of it that lie in [first, end) of the global index are handed to store(index, element).
    template <class Sink>
    WI_KERNEL_FN static void careful_block(const CudaJob& job, uint64_t block, uint64_t first, uint64_t end, const Sink& sink) {
        const Values values(read_again(job));
        const PhiloxSpan<uint32_t> span(job.seed, job.stream, uint32_t(block >> 32));
        uint32_t w[4], words[4];
        philox4x32_10(uint32_t(block), span, w);
        values(w, block, words);
        WI_UNROLL for (int i = 0; i < Values::kPerBlock; ++i) {  // words are registers
            const uint64_t index = block * uint64_t(Values::kPerBlock) + uint64_t(i);
            if (index - first < end - first) sink.store(index, element_of(words, i));
        }
    }

    struct LinearSink {
        Element* at_zero;  // where index 0 would be
        WI_KERNEL_FN void store(uint64_t index, Element e) const { at_zero[index] = e; }
    };

    struct RunSink {
        Element* run;
        const CudaJob& job;
        uint64_t first;  // global index of the run's first element
        WI_KERNEL_FN void store(uint64_t index, Element e) const {
            run[place_of(job, job.outer, job.ndim, index - first).memory] = e;
        }
    };

    WI_KERNEL_FN static void linear(const CudaJob& job, uint32_t tile) {
        const uint64_t start = job.index / uint64_t(kGroup) * uint64_t(kGroup);  // the first group begins here
        const uint64_t tile_start = start + uint64_t(tile) * uint64_t(kTileGroups * kGroup);
        const uint64_t tile_end = tile_start + uint64_t(kTileGroups * kGroup), end = job.index + job.count;
        const uint64_t at_zero = job.data - job.index * sizeof(Element);  // wraps, as addresses do
        const uint64_t first_block = tile_start / uint64_t(Values::kPerBlock), last_block = (tile_end - 1) / uint64_t(Values::kPerBlock);
        if (job.aligned && tile_start >= job.index && tile_end <= end && first_block >> 32 == last_block >> 32)
            return whole(job, at_zero + tile_start * sizeof(Element), first_block);
        const LinearSink sink{reinterpret_cast<Element*>(at_zero)};
#pragma unroll 1
        for (int i = 0; i < kGroupsPerThread * kBlocks; ++i) {
            const uint64_t block = first_block + uint64_t(i) * kThreads + threadIdx.x;
            if (block * uint64_t(Values::kPerBlock) >= end) return;
            careful_block(job, block, job.index, end, sink);
        }
    }

    WI_KERNEL_FN static void runs(const CudaJob& job, uint32_t tile) {
#pragma unroll 1
        for (int i = 0; i < kGroupsPerThread; ++i) {
            const uint64_t g = uint64_t(tile) * kTileGroups + uint64_t(i) * kThreads + threadIdx.x;
            if (g >= job.count) return;
            const Place run = place_of(job, 0, job.outer, g / job.run_groups);
            const uint64_t first = job.index + uint64_t(run.index);
            const uint64_t block = first / uint64_t(Values::kPerBlock) + g % job.run_groups;
            const RunSink sink{reinterpret_cast<Element*>(job.data) + run.memory, job, first};
            careful_block(job, block, first, first + job.run, sink);
        }
    }

    WI_KERNEL_FN static void fill(const CudaJob& job, uint32_t tile) {
        if (job.layout == Layout::kLinear)
            linear(job, tile);
        else
            runs(job, tile);
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

WI_HOST_DEVICE constexpr int program_of(Kind kind, Storage storage) { return int(kind) * kStorages + int(storage); }

template <Storage kStorage>
WI_KERNEL_FN bool fill_tile32(const CudaJob& job, uint32_t tile) {
    switch (job.program) {
        case program_of(Kind::kUniform, kStorage): Tile<Block32<Uniform32Open, kStorage>>::fill(job, tile); return true;
        case program_of(Kind::kUniformClamped, kStorage): Tile<typename BlockUniformClamped<kStorage>::Type>::fill(job, tile); return true;
        case program_of(Kind(kUniformWide), kStorage): Tile<Block32<UniformWide32, kStorage>>::fill(job, tile); return true;
        case program_of(Kind::kNormal, kStorage): Tile<Block32<Normal32, kStorage>>::fill(job, tile); return true;
        case program_of(Kind::kTruncNormalCentral, kStorage): Tile<Block32<TruncNormalCentral32, kStorage>>::fill(job, tile); return true;
        case program_of(Kind::kTruncNormal, kStorage): Tile<Block32<TruncNormal32, kStorage>>::fill(job, tile); return true;
        default: return false;
    }
}

WI_KERNEL_FN void fill_tile64(const CudaJob& job, uint32_t tile) {
    switch (job.program) {
        case program_of(Kind::kUniform, Storage::kFloat64):
        case program_of(Kind::kUniformClamped, Storage::kFloat64): return Tile<Block64<Uniform64>>::fill(job, tile);
        case program_of(Kind::kNormal, Storage::kFloat64): return Tile<Block64<Normal64>>::fill(job, tile);
        case program_of(Kind::kTruncNormal, Storage::kFloat64): return Tile<Block64<TruncNormal64>>::fill(job, tile);
    }
}

template <bool kOneHot>
WI_KERNEL_FN void fill_tile_pattern(const CudaJob& job, uint32_t tile) {
    switch (item_size(Storage(job.program % kStorages))) {
        case 1: return Tile<BlockPattern<uint8_t, kOneHot>>::fill(job, tile);
        case 2: return Tile<BlockPattern<uint16_t, kOneHot>>::fill(job, tile);
        case 4: return Tile<BlockPattern<uint32_t, kOneHot>>::fill(job, tile);
        default: return Tile<BlockPattern<uint64_t, kOneHot>>::fill(job, tile);
    }
}

WI_KERNEL_FN void fill_tile(const CudaJob& job, uint32_t tile) {
    if (job.program / kStorages == int(Kind::kConstant)) return fill_tile_pattern<false>(job, tile);
    if (job.program / kStorages == int(Kind::kOneHot)) return fill_tile_pattern<true>(job, tile);
    if (job.program == program_of(Kind::kBits, Storage::kUInt32)) return Tile<BlockBits>::fill(job, tile);
    if (fill_tile32<Storage::kFloat32>(job, tile) || fill_tile32<Storage::kBFloat16>(job, tile)) return;
    if (fill_tile32<Storage::kFloat16>(job, tile) || fill_tile32<Storage::kFloat8E4M3>(job, tile)) return;
    if (fill_tile32<Storage::kFloat8E5M2>(job, tile)) return;
    fill_tile64(job, tile);
}

// The last job that begins at or before the tile.
WI_KERNEL_FN const CudaJob& job_of(const CudaTable& table, uint32_t tile) {
    const CudaJob* jobs = table.far ? table.far : table.here;
    uint32_t low = 0, high = table.jobs;
    while (high - low > 1) {
        const uint32_t middle = (low + high) / 2;
        if (jobs[middle].first_tile <= tile)
            low = middle;
        else
            high = middle;
    }
    return jobs[low];
}

#if !defined(WI_NO_KERNEL)  // where combine_kernel.h has its own
#if defined(WI_EMULATED)
inline void
#else
__global__ void __launch_bounds__(kThreads, kResidentBlocks)
#endif
    fill_kernel(const WI_GRID_CONSTANT CudaTable table) {
    for (uint32_t tile = blockIdx.x; tile < table.tiles; tile += gridDim.x) {
        const CudaJob& job = job_of(table, tile);
        fill_tile(job, tile - job.first_tile);
    }
}
#endif

}  // namespace WI_ISA
}  // namespace wi
