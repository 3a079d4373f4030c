// fill_kernel.h and combine_kernel.h compiled by g++: one thread of any of their kernels, for emulated_gpu.cpp. To be compiled with
// -fsanitize=thread.
#include "watched.h"

#include "cuda/combine_kernel.h"
#include "cuda/fill_cuda.h"
#include "cuda/fill_kernel.h"

extern "C" NOT_WATCHED void gpu_thread(int kernel, const unsigned char* param, uint32_t tid, uint32_t ctaid, uint32_t nctaid) {
    start_thread(tid, ctaid, nctaid, __builtin_frame_address(0));
    const wi::CombineTable& p = *reinterpret_cast<const wi::CombineTable*>(param);
    switch (wi::Kernel(kernel)) {
        case wi::Kernel::kFill8: return wi::emulated::fill_kernel<1>(p.table);
        case wi::Kernel::kFill16: return wi::emulated::fill_kernel<2>(p.table);
        case wi::Kernel::kFill32: return wi::emulated::fill_kernel<4>(p.table);
        case wi::Kernel::kFill64: return wi::emulated::fill_kernel<8>(p.table);
        case wi::Kernel::kCombine: return wi::emulated::combine_kernel(p);
    }
}
