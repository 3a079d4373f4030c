// nvcc's PTX of every kernel as C (tools/ptx_to_c.py): one thread of any of them, for emulated_gpu.cpp. In the order of fill_cuda.h.
#include <stdint.h>

typedef void Thread(const unsigned char* param, uint32_t tid, uint32_t ctaid, uint32_t nctaid);
Thread fill_8bit, fill_16bit, fill_32bit, fill_64bit, combine;

void gpu_thread(int kernel, const unsigned char* param, uint32_t tid, uint32_t ctaid, uint32_t nctaid) {
    static Thread* const kernels[] = {fill_8bit, fill_16bit, fill_32bit, fill_64bit, combine};
    kernels[kernel](param, tid, ctaid, nctaid);
}
