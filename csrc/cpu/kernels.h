// The door to the evaluators: each ISA file defines three functions that hand out its kernels.
#pragma once
#include "../job.h"

namespace wi {

RunFn find_run_scalar(Kind kind, Storage storage);
RunFn find_run_avx2(Kind kind, Storage storage);
RunFn find_run_avx512(Kind kind, Storage storage);
RunFn find_run_neon(Kind kind, Storage storage);

CombineFn find_combine_scalar(Mode mode, Storage storage);
CombineFn find_combine_avx2(Mode mode, Storage storage);
CombineFn find_combine_avx512(Mode mode, Storage storage);
CombineFn find_combine_neon(Mode mode, Storage storage);

StoreColumnsFn find_store_columns_scalar(int item_size);
StoreColumnsFn find_store_columns_avx2(int item_size);
StoreColumnsFn find_store_columns_avx512(int item_size);
StoreColumnsFn find_store_columns_neon(int item_size);

}  // namespace wi
