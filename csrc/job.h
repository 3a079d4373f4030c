// Plain data between Python and the kernels: what to write (Transform), where and with which random numbers (FillJob), and how
// it meets what is there (Combine). Numbers of the enums are shared with weightinit_cuda/numerics (lowering.py and combine.py).
#pragma once
#include <cstdint>

#if defined(__CUDACC__)
#define WI_HOST_DEVICE __host__ __device__
#define WI_INLINE __forceinline__
#else
#define WI_HOST_DEVICE
#define WI_INLINE inline
#endif
#if defined(__CUDA_ARCH__)
#define WI_NO_UNROLL _Pragma("unroll 1")
#else
#define WI_NO_UNROLL
#endif

namespace wi {

enum class Kind : int {
    kBits = 0,
    kConstant = 1,
    kUniform = 2,
    kUniformClamped = 3,
    kNormal = 4,
    kTruncNormalCentral = 5,
    kTruncNormal = 6,
    kOneHot = 7,
};
constexpr int kKinds = 8;

enum class Storage : int {
    kFloat32 = 0,
    kFloat64 = 1,
    kFloat16 = 2,
    kBFloat16 = 3,
    kFloat8E4M3 = 4,
    kFloat8E5M2 = 5,
    kUInt8 = 6,
    kUInt16 = 7,
    kUInt32 = 8,
    kUInt64 = 9
};
constexpr int kStorages = 10;
WI_HOST_DEVICE constexpr int item_size(Storage storage) {
    switch (storage) {
        case Storage::kFloat8E4M3:
        case Storage::kFloat8E5M2:
        case Storage::kUInt8: return 1;
        case Storage::kFloat16:
        case Storage::kBFloat16:
        case Storage::kUInt16: return 2;
        case Storage::kFloat64:
        case Storage::kUInt64: return 8;
        default: return 4;
    }
}

constexpr int kMaxParams = 8, kMaxIntegers = 6;

// A kernel's parameters, already rounded: the order is that of docs/numerics.md.
struct Transform {
    Kind kind;
    double params[kMaxParams];
    int64_t integers[kMaxIntegers];

    float f32(int i) const { return float(params[i]); }
    double f64(int i) const { return params[i]; }
    uint64_t integer(int i) const { return uint64_t(integers[i]); }
};

struct Draw {
    uint64_t seed, stream;
};

// What becomes of an element x and the value v that is made for it (docs/numerics.md, section 5).
enum class Mode : int {
    kStore = 0,  // v
    kAdd = 1,    // x + v
    kLerp = 2,   // x + weight (v - x)
};
constexpr int kModes = 3;

struct Combine {
    Mode mode;
    double weight;  // of kLerp; the nearest float32 where the arithmetic is float32
};

// Writes elements [index, index + n) of the global tensor to out, consecutively.
using RunFn = void (*)(void* out, uint64_t index, uint64_t n, const Transform& transform, const Draw& draw);

// The type in which v comes to be combined with elements of `storage`: rounded as they are; to be added, not yet rounded.
WI_HOST_DEVICE constexpr Storage made_storage(Mode mode, Storage storage) {
    return mode == Mode::kAdd && item_size(storage) < 4 ? Storage::kFloat32 : storage;
}

// Combines n consecutive elements at `memory` with n values of made_storage().
using CombineFn = void (*)(void* memory, const void* made, uint64_t n, double weight);

// rows x columns values, made row by row, rows `pitch` bytes apart; and the memory where they go, with its strides in bytes.
// Past the caches, where there is such a store: memory and every column then begin with a cache line.
struct Columns {
    const char* values;
    uint64_t pitch;
    char* memory;
    uint64_t rows, columns;
    int64_t row_stride, column_stride;
    bool past_caches;
};
using StoreColumnsFn = void (*)(const Columns& columns);

// One dimension of a region: `size` elements, `stride` elements apart in memory, `step` apart in the global index.
struct Dim {
    int64_t size, stride, step;
};

constexpr int kMaxDims = 25;  // as many as torch allows to index

struct FillJob {
    char* data;
    Storage storage;
    Transform transform;
    Draw draw;
    uint64_t index;  // global index of the first element
    int ndim;
    Dim dims[kMaxDims];  // outermost first
};

}  // namespace wi
