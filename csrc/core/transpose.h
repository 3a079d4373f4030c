// Storing a block of values that were made row by row where its columns, not its rows, lie close together in memory: transposed and
// channels_last tensors. Squares of values are transposed in registers; values are bits here, whatever their type.
#pragma once
#include "../job.h"
#include "lanes_scalar.h"

namespace wi {
namespace WI_ISA {

template <int... kLane>
struct Lanes {};
template <int kCount, int... kLane>
struct FirstLanes : FirstLanes<kCount - 1, kCount - 1, kLane...> {};
template <int... kLane>
struct FirstLanes<0, kLane...> {
    using Type = Lanes<kLane...>;
};

// Value by value.
template <class T>
void store_one_by_one(const Columns& c) {
    for (uint64_t column = 0; column < c.columns; ++column) {
        char* to = c.memory + int64_t(column) * c.column_stride;
        const char* from = c.values + column * sizeof(T);
        for (uint64_t row = 0; row < c.rows; ++row, to += c.row_stride, from += c.pitch) memcpy(to, from, sizeof(T));
    }
}

// T is an integer of the size of the values. kShort columns go through together, as 16 bytes of each of kLanes rows: vectors hold rows
// kShort apart, so that transposing within their 16-byte parts, which every machine does well, leaves the rows in order.
template <class L, class T, int kVectorBytes>
struct Transpose {
    static constexpr int kLanes = kVectorBytes / int(sizeof(T)), kShort = 16 / int(sizeof(T));
    typedef T Vector __attribute__((vector_size(kVectorBytes)));

    // Within 16 bytes: the values of the lower (0) or the upper (1) halves of a and b in turn.
    template <int kHalf, int... kLane>
    WI_FN Vector interleave(Vector a, Vector b, Lanes<kLane...>) {
#if defined(__clang__)
        return __builtin_shufflevector(a, b, from<kHalf>(kLane)...);
#else
        return __builtin_shuffle(a, b, Vector{T(from<kHalf>(kLane))...});
#endif
    }
    template <int kHalf>
    static constexpr int from(int lane) {
        return lane / kShort * kShort + kHalf * kShort / 2 + lane % kShort / 2 + lane % 2 * kLanes;
    }

    // Interleaving the first half of the vectors with the second, log2(kShort) times, is transposing.
    template <bool kPastCaches>
    WI_FN void square(const Columns& c, uint64_t row, uint64_t column) {
        using All = typename FirstLanes<kLanes>::Type;
        Vector rows[kShort], next[kShort];
        const char* const from = c.values + row * c.pitch + column * sizeof(T);
        WI_UNROLL for (int i = 0; i < kShort; ++i) {
            if constexpr (kVectorBytes == 16)
                memcpy(&rows[i], from + uint64_t(i) * c.pitch, 16);
            else
                rows[i] = (Vector)L::load_parts(from + uint64_t(i) * c.pitch, uint64_t(kShort) * c.pitch);
        }
        WI_UNROLL for (int done = 1; done < kShort; done *= 2) {
            WI_UNROLL for (int i = 0; i < kShort / 2; ++i) {
                next[2 * i] = interleave<0>(rows[i], rows[i + kShort / 2], All());
                next[2 * i + 1] = interleave<1>(rows[i], rows[i + kShort / 2], All());
            }
            WI_UNROLL for (int i = 0; i < kShort; ++i) rows[i] = next[i];
        }
        char* const to = c.memory + row * sizeof(T) + int64_t(column) * c.column_stride;
        WI_UNROLL for (int i = 0; i < kShort; ++i) {
            if constexpr (kPastCaches)
                L::store_past_caches(to + i * c.column_stride, rows[i]);
            else
                memcpy(to + i * c.column_stride, &rows[i], sizeof(Vector));
        }
    }

    template <bool kPastCaches>
    static void squares(const Columns& c) {
        for (uint64_t column = 0; column < c.columns; column += kShort)
            for (uint64_t row = 0; row < c.rows; row += kLanes) square<kPastCaches>(c, row, column);
    }

    // Columns as wide as possible, and what is left of rows and columns by shorter vectors, in the end one by one.
    static void store(const Columns& c) {
        if (c.row_stride != int64_t(sizeof(T))) return store_one_by_one<T>(c);
        Columns whole = c, rest[2] = {c, c};
        Columns &below = rest[0], &beside = rest[1];
        whole.rows -= c.rows % kLanes;
        whole.columns -= c.columns % kShort;
        c.past_caches ? squares<true>(whole) : squares<false>(whole);
        below.rows -= whole.rows;
        below.values += whole.rows * c.pitch;
        below.memory += whole.rows * sizeof(T);
        below.columns = whole.columns;
        beside.columns -= whole.columns;
        beside.values += whole.columns * sizeof(T);
        beside.memory += int64_t(whole.columns) * c.column_stride;
        for (Columns& part : rest) {
            part.past_caches = false;
            if (part.rows == 0 || part.columns == 0) continue;
            if constexpr (kVectorBytes > 16)
                Transpose<L, T, 16>::store(part);
            else
                store_one_by_one<T>(part);
        }
    }
};

struct Pair {
    uint64_t first, second;
};

template <class L>
StoreColumnsFn find_store_columns(int item_size) {
    switch (item_size) {
        case 1: return Transpose<L, uint8_t, L::kVectorBytes>::store;
        case 2: return Transpose<L, uint16_t, L::kVectorBytes>::store;
        case 4: return Transpose<L, uint32_t, L::kVectorBytes>::store;
        case 8: return Transpose<L, uint64_t, L::kVectorBytes>::store;
        default: return store_one_by_one<Pair>;
    }
}

}  // namespace WI_ISA
}  // namespace wi
