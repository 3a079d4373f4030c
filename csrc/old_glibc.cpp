// For wheels that are built on a new Linux and run on an old one (tools/old_glibc.py); part of no other build. libstdc++ of today asks
// glibc, from 2.32 on, whether the process has one thread, and then counts references without atomic operations. Here it never has.
extern "C" {
__attribute__((visibility("hidden"))) extern const char __libc_single_threaded;
const char __libc_single_threaded = 0;
}
