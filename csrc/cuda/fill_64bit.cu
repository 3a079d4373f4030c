// The kernel for elements of 64 bits: float64.
#define WI_ISA cuda
#define WI_DEVICE
#define WI_GRID_CONSTANT __grid_constant__
#include "fill_kernel.h"

namespace wi {
const void* fill_kernel_64bit() { return reinterpret_cast<const void*>(&cuda::fill_kernel<8>); }
}  // namespace wi
