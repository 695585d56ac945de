/* Holds memory while others look. Usage: held [leak BYTES MILLISECONDS]
 * Says what it holds, and stays until it is killed (at most five minutes). With `leak` it takes that much more each time. */
#include "driver.h"
#include <time.h>

static void keeps(void) {
    CUdeviceptr address;
    for (int i = 0; i < 3; i++) MUST(cuMemAlloc_v2, &address, 1 << 20);
    left("device", "cuMemAlloc_v2", 3 << 20, 3);
}
static void pins(void) {
    void *address;
    MUST(cuMemAllocHost_v2, &address, 4096);
    left("pinned", "cuMemAllocHost_v2", 4096, 1);
}
static void frees(void) {
    CUdeviceptr address;
    for (int i = 0; i < 5; i++) {
        MUST(cuMemAlloc_v2, &address, 1000);
        MUST(cuMemFree_v2, address);
    }
}
static void fails(void) {
    CUdeviceptr address;
    if (!CU(cuMemAlloc_v2)(&address, 1ul << 46)) exit(70);
}
static void leaks(size_t bytes) {
    CUdeviceptr address;
    MUST(cuMemAlloc_v2, &address, bytes);
}

int main(int argc, char **argv) {
    CUhandle context;
    alarm(300);
    driver("dlsym");
    start();
    MUST(cuDevicePrimaryCtxRetain, &context, 0);
    MUST(cuCtxSetCurrent, context);
    keeps(), pins(), frees(), fails();
    puts("held");
    fflush(stdout);
    for (;;) {
        if (argc < 4) {
            pause();
            continue;
        }
        struct timespec between = {atol(argv[3]) / 1000, atol(argv[3]) % 1000 * 1000000};
        nanosleep(&between, NULL);
        leaks(strtoul(argv[2], NULL, 10));
    }
}
