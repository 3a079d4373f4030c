// The kernel that combines what is made with what is there, for elements of any size.
#define WI_ISA cuda
#define WI_DEVICE
#define WI_GRID_CONSTANT __grid_constant__
#include "combine_kernel.h"

namespace wi {
const void* combine_kernel() { return reinterpret_cast<const void*>(&cuda::combine_kernel); }
}  // namespace wi
