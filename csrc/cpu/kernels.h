// The door to the evaluators: each ISA file defines three functions that hand out its kernels; that of AVX-512 BF16 has bfloat16 alone.
#pragma once
#include "../job.h"

namespace wi {

RunFn find_run_scalar(Kind kind, Storage storage);
RunFn find_run_avx2(Kind kind, Storage storage);
RunFn find_run_avx512(Kind kind, Storage storage);
RunFn find_run_neon(Kind kind, Storage storage);
RunFn find_bfloat16_avx512bf16(Kind kind);  // for values none of which is subnormal; null: not compiled

CombineFn find_combine_scalar(Mode mode, Storage storage);
CombineFn find_combine_avx2(Mode mode, Storage storage);
CombineFn find_combine_avx512(Mode mode, Storage storage);
CombineFn find_combine_neon(Mode mode, Storage storage);

StoreColumnsFn find_store_columns_scalar(int item_size);
StoreColumnsFn find_store_columns_avx2(int item_size);
StoreColumnsFn find_store_columns_avx512(int item_size);
StoreColumnsFn find_store_columns_neon(int item_size);

}  // namespace wi
