// PyTorch's reporting functions, whose listeners throw; with -DPROGRAM, who calls them and catches.
#include <cstdint>
#include <cstdio>
#include <dlfcn.h>
#include <stdexcept>

namespace c10 {
struct Device { int8_t type, index; };
void reportMemoryUsageToProfiler(void *, int64_t, size_t, size_t, Device);
void reportOutOfMemoryToProfiler(int64_t, size_t, size_t, Device);
}

#ifndef PROGRAM
namespace c10 {
void reportMemoryUsageToProfiler(void *address, int64_t bytes, size_t, size_t, Device) {
    if (bytes % 2048 == 0) throw std::runtime_error("usage");
}
void reportOutOfMemoryToProfiler(int64_t asked, size_t, size_t, Device) { throw asked; }
}
#else
struct Guard {
    int &destroyed;
    ~Guard() { destroyed++; }
};

static int destroyed;

static void usage(uintptr_t address, int64_t bytes, size_t allocated) {
    Guard guard{destroyed};
    c10::reportMemoryUsageToProfiler((void *)address, bytes, allocated, allocated, {1, 0});
}

int main() {
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    auto init = (unsigned (*)(unsigned))dlsym(driver, "cuInit");
    auto retain = (unsigned (*)(void **, int))dlsym(driver, "cuDevicePrimaryCtxRetain");
    auto use = (unsigned (*)(void *))dlsym(driver, "cuCtxSetCurrent");
    auto alloc = (unsigned (*)(unsigned long long *, size_t))dlsym(driver, "cuMemAlloc_v2");
    void *context;
    unsigned long long segment;
    if (init(0) || retain(&context, 0) || use(context) || alloc(&segment, 2 << 20)) return 70;
    int caught = 0;
    size_t allocated = 0;
    for (int i = 0; i < 100; i++) {
        int64_t bytes = i % 2 ? 2048 : 512;
        try {
            usage(segment + 4096 * i, bytes, allocated += bytes);
        } catch (const std::runtime_error &error) {
            caught++;
        }
    }
    try {
        c10::reportOutOfMemoryToProfiler(77, allocated, 2 << 20, {1, 0});
    } catch (int64_t asked) {
        caught += asked;
    }
    printf("caught %d, destroyed %d\n", caught, destroyed);
}
#endif
