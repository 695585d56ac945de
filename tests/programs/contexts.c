/* Allocates in a context and ends that by destroy, reset or the last release. Usage: contexts ROUTE destroy|reset|release */
#include "driver.h"

static void fill(void) {
    void *pinned;
    CUdeviceptr managed;
    CUhandle array;
    CUDA_ARRAY_DESCRIPTOR shape = {16, 16, FORMAT_FLOAT, 1};
    CUdeviceptr freed = allocate(123456);
    CUdeviceptr address;
    for (int i = 0; i < 3; i++) MUST(cuMemAlloc_v2, &address, 10000);
    MUST(cuMemHostAlloc, &pinned, 8192, 0);
    MUST(cuMemAllocManaged, &managed, 4444, 1);
    MUST(cuArrayCreate_v2, &array, &shape);
    MUST(cuMemFree_v2, freed);
    left("device", "cuMemAlloc_v2", 30000, 3);
    left("pinned", "cuMemHostAlloc", 8192, 1);
    left("managed", "cuMemAllocManaged", 4444, 1);
    left("array", "cuArrayCreate_v2", 1024, 1);
}

/* Physical memory belongs to the device, not to the context. */
static void physical(void) {
    CUmemAllocationProp props = {.type = 1, .location = {1, 0}};
    unsigned long long handle;
    MUST(cuMemCreate, &handle, 2 << 20, &props, 0);
    left("vmm", "cuMemCreate", 2 << 20, 1);
}

int main(int argc, char **argv) {
    CUhandle context;
    driver(argv[1]);
    MUST(cuInit, 0);
    if (!strcmp(argv[2], "destroy")) {
        MUST(cuCtxCreate_v2, &context, 0, 0);
        fill();
        physical();
        MUST(cuCtxDestroy_v2, context);
    } else {
        MUST(cuDevicePrimaryCtxRetain, &context, 0);
        MUST(cuDevicePrimaryCtxRetain, &context, 0);
        MUST(cuCtxSetCurrent, context);
        fill();
        physical();
        MUST(cuDevicePrimaryCtxRelease_v2, 0); /* not the last */
        if (!strcmp(argv[2], "reset")) MUST(cuDevicePrimaryCtxReset_v2, 0);
        else MUST(cuDevicePrimaryCtxRelease_v2, 0);
    }
    return 0;
}
