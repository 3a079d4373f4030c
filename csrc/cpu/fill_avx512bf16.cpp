// What stores bfloat16, compiled for AVX-512 F, BW, DQ, VL and BF16. The target is set here, after the system headers, so nothing
// else uses it. Compilers before GCC 10 do not know it.
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels.h"

#if defined(__clang__) || __GNUC__ >= 10

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,f16c")
#endif
#if defined(__GNUC__) && !defined(__clang__)  // GCC bug 105593: its own AVX-512 intrinsics "use" an undefined vector
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#define WI_ISA avx512bf16
#define WI_PHILOX_PACK 2
#define WI_TRANSFORM_PACK 2
#include "../core/lanes_avx512bf16.h"
#include "../core/philox_avx512.h"
#include "../core/fill.h"

namespace wi {
RunFn find_bfloat16_avx512bf16(Kind kind) { return avx512bf16::find_run32<avx512bf16::Avx512Bf16, Storage::kBFloat16>(kind); }
}  // namespace wi

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else
namespace wi {
RunFn find_bfloat16_avx512bf16(Kind) { return nullptr; }
}  // namespace wi
#endif
