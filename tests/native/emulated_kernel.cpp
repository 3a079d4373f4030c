// fill_kernel.h compiled by g++: one thread of it, for emulated_gpu.cpp. To be compiled with -fsanitize=thread.
#include "watched.h"

#include "cuda/fill_kernel.h"

extern "C" NOT_WATCHED void gpu_thread(const unsigned char* param, uint32_t tid, uint32_t ctaid, uint32_t nctaid) {
    start_thread(tid, ctaid, nctaid, __builtin_frame_address(0));
    wi::emulated::fill_kernel(*reinterpret_cast<const wi::CudaTable*>(param));
}
