// The core compiled for AVX-512 F, BW, DQ, VL. The target is set here, after the system headers, so nothing else uses it.
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c")
#endif
#if defined(__GNUC__) && !defined(__clang__)  // GCC bug 105593: its own AVX-512 intrinsics "use" an undefined vector
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#define WI_ISA avx512
#define WI_PHILOX_PACK 2
#define WI_TRANSFORM_PACK 2
#include "../core/lanes_avx512.h"
#include "../core/philox_avx512.h"
#include "../core/fill.h"
#include "../core/combine.h"
#include "../core/transpose.h"

namespace wi {
RunFn find_run_avx512(Kind kind, Storage storage) { return avx512::find_run<avx512::Avx512>(kind, storage); }
CombineFn find_combine_avx512(Mode mode, Storage storage) { return avx512::find_combine<avx512::Avx512>(mode, storage); }
StoreColumnsFn find_store_columns_avx512(int item_size) { return avx512::find_store_columns<avx512::Avx512>(item_size); }
}  // namespace wi

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
