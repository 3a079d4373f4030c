// The core compiled for the machine every build can run on, one block at a time.
#include <cstdint>
#include <cstring>

#include "kernels.h"

#define WI_ISA scalar
#define WI_PHILOX_PACK 1
#define WI_TRANSFORM_PACK 1
#include "../core/lanes_scalar.h"
#include "../core/fill.h"
#include "../core/combine.h"
#include "../core/transpose.h"

namespace wi {
RunFn find_run_scalar(Kind kind, Storage storage) { return scalar::find_run<scalar::Scalar>(kind, storage); }
CombineFn find_combine_scalar(Mode mode, Storage storage) { return scalar::find_combine<scalar::Scalar>(mode, storage); }
StoreColumnsFn find_store_columns_scalar(int item_size) { return scalar::find_store_columns<scalar::Scalar>(item_size); }
}  // namespace wi
