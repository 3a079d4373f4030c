// For wheels that are built on a new Linux and run on an old one (tools/old_glibc.py); part of no other build. What libstdc++ of
// today, which is linked into the module, asks of glibc and an old one has not.
#include <sys/stat.h>

#define WI_OF_THIS_MODULE __attribute__((visibility("hidden")))

extern "C" {

// glibc 2.32: whether the process has one thread, and references may be counted without atomic operations. Here it never has.
WI_OF_THIS_MODULE extern const char __libc_single_threaded;
const char __libc_single_threaded = 0;

// glibc 2.33: until then a function with a version number of the structure, which is still there.
int __fxstat64(int version, int file, struct stat64* out);
WI_OF_THIS_MODULE int fstat64(int file, struct stat64* out) noexcept {
#if defined(__x86_64__)
    return __fxstat64(1, file, out);
#else
    return __fxstat64(0, file, out);
#endif
}

}  // extern "C"
