// The door to the evaluators: each ISA file defines one function that hands out its kernels.
#pragma once
#include "../job.h"

namespace wi {

RunFn find_run_scalar(Kind kind, Storage storage);
RunFn find_run_avx2(Kind kind, Storage storage);
RunFn find_run_avx512(Kind kind, Storage storage);
RunFn find_run_neon(Kind kind, Storage storage);

}  // namespace wi
