// The kernel for elements of 8 bits: float8.
#define WI_ISA cuda
#define WI_DEVICE
#define WI_GRID_CONSTANT __grid_constant__
#include "fill_kernel.h"

namespace wi {
const void* fill_kernel_8bit() { return reinterpret_cast<const void*>(&cuda::fill_kernel<1>); }
}  // namespace wi
