/* Memory that moves while others look: one function keeps, one leaks, one takes and gives back, one uses a pool,
 * one asks for too much. Usage: moves [SECONDS [DEVICE]]; ends by itself (default: 300 s). */
#include "driver.h"
#include <time.h>

static void keeps(void) {
    CUdeviceptr address;
    for (int i = 0; i < 3; i++) MUST(cuMemAlloc_v2, &address, 1l << 30);
}
static void pins(void) {
    void *address;
    MUST(cuMemAllocHost_v2, &address, 64 << 20);
}
static void leaks(void) {
    CUdeviceptr address;
    MUST(cuMemAlloc_v2, &address, 256 << 10);
}
static CUdeviceptr batch(CUdeviceptr before, int step) {
    CUdeviceptr address;
    if (before) MUST(cuMemFree_v2, before);
    MUST(cuMemAlloc_v2, &address, (size_t)(1 + step % 20) << 25);
    return address;
}
static CUdeviceptr queues(CUdeviceptr before, int step) {
    CUdeviceptr address;
    if (before) MUST(cuMemFreeAsync, before, NULL);
    MUST(cuMemAllocAsync, &address, (size_t)(1 + step % 7) << 24, NULL);
    return address;
}
static void fails(void) {
    CUdeviceptr address;
    if (!CU(cuMemAlloc_v2)(&address, 1ul << 46)) exit(70);
}
static CUdeviceptr forward(CUdeviceptr before, int step) { return batch(before, step); }
static CUdeviceptr backward(CUdeviceptr before, int step) { return queues(before, step); }

int main(int argc, char **argv) {
    CUhandle context;
    int seconds = argc > 1 ? atoi(argv[1]) : 300, device = argc > 2 ? atoi(argv[2]) : 0;
    alarm(seconds + 30);
    driver("dlsym");
    start();
    MUST(cuDevicePrimaryCtxRetain, &context, device);
    MUST(cuCtxSetCurrent, context);
    keeps(), pins(), fails();
    puts("moves");
    fflush(stdout);
    CUdeviceptr kept[2] = {0, 0};
    for (int step = 0; step < seconds * 20; step++) {
        struct timespec between = {0, 50000000};
        nanosleep(&between, NULL);
        kept[0] = forward(kept[0], step);
        kept[1] = backward(kept[1], step);
        if (step % 5 == 0) leaks();
        if (step % 200 == 199) fails();
    }
    return 0;
}
