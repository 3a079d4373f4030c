// The kernel for elements of 16 bits: float16, bfloat16.
#define WI_ISA cuda
#define WI_DEVICE
#define WI_GRID_CONSTANT __grid_constant__
#include "fill_kernel.h"

namespace wi {
const void* fill_kernel_16bit() { return reinterpret_cast<const void*>(&cuda::fill_kernel<2>); }
}  // namespace wi
