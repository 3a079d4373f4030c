// What lets a CPU round to bfloat16 by itself (core/lanes_avx512bf16.h, cpu/dispatch.cpp), proved by going through all inputs: for
// every float32 that is neither subnormal nor NaN the bits are those of core/convert.h, whatever the floating-point environment; and
// no cosine or sine of a normal value is nearer to 0 than 2^-32 unless it is 0. Exit status 2: this CPU has no such instruction.
#include <cpuid.h>
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "job.h"
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,f16c")
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#define WI_ISA proofs
#include "core/lanes_avx512bf16.h"
#include "core/convert.h"
#include "core/math.h"

namespace wi {
namespace proofs {

using L = Avx512Bf16;
constexpr uint64_t kAll = uint64_t(1) << 32;

L::U next(uint64_t first) { return L::lane_blocks() + L::U(uint32_t(first)); }

bool is_proved(uint32_t bits) {
    const uint32_t magnitude = bits & 0x7FFFFFFFu;
    return magnitude == 0 || (magnitude >= 0x00800000u && magnitude <= 0x7F800000u);
}

uint64_t differing() {
    uint64_t wrong = 0;
    for (uint64_t first = 0; first < kAll; first += 64) {
        L::F x[4];
        L::U bits[4];
        alignas(64) uint16_t by_hardware[64], by_core[64];
        for (int i = 0; i < 4; ++i) {
            x[i] = as_float(next(first + uint64_t(16 * i)));
            bits[i] = bfloat16_bits<L::F, L::U>(x[i]);
        }
        L::store_bfloat16(by_hardware, x);
        L::store16(by_core, bits);
        if (!memcmp(by_hardware, by_core, sizeof by_core)) continue;
        for (uint64_t i = 0; i < 64; ++i) wrong += by_hardware[i] != by_core[i] && is_proved(uint32_t(first + i));
    }
    return wrong;
}

// The least magnitude that is not 0 among cosines and sines of all angles, as Normal32 of core/distributions.h makes them.
float least() {
    alignas(64) float found[16];
    L::F smallest(1.0f);
    for (uint64_t first = 0; first < kAll; first += 16) {
        const CosSin<L::F> t = cos_sin_pi_32(fma(to_float(next(first)), L::F(0x1p-32f), L::F(0x1p-33f)));
        for (const L::F x : {t.cos, t.sin}) {
            const L::F magnitude = as_float(as_bits(x) & L::U(0x7FFFFFFFu));
            smallest = select(less(as_bits(magnitude), L::U(1u)), smallest, min(smallest, magnitude));
        }
    }
    L::store(found, smallest);
    return *std::min_element(found, found + 16);
}

int prove() {
    int failed = 0;
    for (const unsigned environment :
         {0x1F80u, 0x9FC0u, 0xFF80u}) {  // usual; subnormals are 0; towards 0, subnormals results 0
        _mm_setcsr(environment);
        const uint64_t wrong = differing();
        _mm_setcsr(0x1F80u);
        printf("environment %04x: %llu of 2^32 differ\n", environment, (unsigned long long)wrong);
        failed += wrong != 0;
    }
    const float smallest = least();
    printf("least cosine or sine: %a\n", smallest);
    return failed + !(smallest >= 0x1p-32f);
}

}  // namespace proofs
}  // namespace wi
#pragma GCC pop_options

int main() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 5 & 1)) return 2;
    return wi::proofs::prove() ? 1 : 0;
}
