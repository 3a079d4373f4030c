// The core compiled for AVX2 + FMA + F16C. The target is set here, after the system headers, so nothing else uses it.
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#define WI_ISA avx2
#define WI_PHILOX_PACK 3
#define WI_TRANSFORM_PACK 2
#include "../core/lanes_avx2.h"
#include "../core/philox_avx2.h"
#include "../core/fill.h"
#include "../core/combine.h"
#include "../core/transpose.h"

namespace wi {
RunFn find_run_avx2(Kind kind, Storage storage) { return avx2::find_run<avx2::Avx2>(kind, storage); }
CombineFn find_combine_avx2(Mode mode, Storage storage) { return avx2::find_combine<avx2::Avx2>(mode, storage); }
StoreColumnsFn find_store_columns_avx2(int item_size) { return avx2::find_store_columns<avx2::Avx2>(item_size); }
}  // namespace wi

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
