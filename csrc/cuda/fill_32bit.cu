// The kernel for elements of 32 bits: float32, and raw words.
#define WI_ISA cuda
#define WI_DEVICE
#define WI_GRID_CONSTANT __grid_constant__
#include "fill_kernel.h"

namespace wi {
const void* fill_kernel_32bit() { return reinterpret_cast<const void*>(&cuda::fill_kernel<4>); }
}  // namespace wi
