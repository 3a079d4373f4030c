// The core compiled for AArch64 Advanced SIMD, which every AArch64 machine has.
#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#include "kernels.h"

#define WI_ISA neon
#define WI_PHILOX_PACK 2
#define WI_TRANSFORM_PACK 2
#include "../core/lanes_neon.h"
#include "../core/fill.h"
#include "../core/combine.h"
#include "../core/transpose.h"

namespace wi {
RunFn find_run_neon(Kind kind, Storage storage) { return neon::find_run<neon::Neon>(kind, storage); }
CombineFn find_combine_neon(Mode mode, Storage storage) { return neon::find_combine<neon::Neon>(mode, storage); }
StoreColumnsFn find_store_columns_neon(int item_size) { return neon::find_store_columns<neon::Neon>(item_size); }
}  // namespace wi
