// The door to the evaluators: each ISA file defines two functions that hand out its kernels.
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

}  // namespace wi
