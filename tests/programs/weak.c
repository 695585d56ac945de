/* Asks whether there is a driver by weak references, as programs do that work without one. Usage: weak [open] */
#include "driver.h"
#pragma weak cuInit
#pragma weak cuDeviceGetCount
#pragma weak cuMemAlloc_v2
extern CUresult cuInit(unsigned), cuDeviceGetCount(int *), cuMemAlloc_v2(CUdeviceptr *, size_t);

int main(int argc, char **argv) {
    if (argc > 1 && !dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) return puts(dlerror()), 71;
    CUresult result = cuInit ? cuInit(0) : 0;
    int count = 0;
    if (cuInit && result == 0) cuDeviceGetCount(&count);
    /* Standard error is not compared. */
    fprintf(stderr, "cuInit %s, says %u\n", cuInit ? "is there" : "is null", result);
    printf("%d devices\n", count);
    return 0;
}
