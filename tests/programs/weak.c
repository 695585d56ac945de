/* Asks whether there are a driver and a runtime by weak references, as programs do that work without them. Usage:
 * weak [LIBRARY to open for itself] */
#include "driver.h"
#pragma weak cudaMalloc
extern unsigned cudaMalloc(void **, size_t);
#pragma weak cuInit
#pragma weak cuDeviceGetCount
#pragma weak cuMemAlloc_v2
extern CUresult cuInit(unsigned), cuDeviceGetCount(int *), cuMemAlloc_v2(CUdeviceptr *, size_t);

int main(int argc, char **argv) {
    if (argc > 1 && !dlopen(argv[1], RTLD_NOW | RTLD_LOCAL)) return puts(dlerror()), 71;
    unsigned runtime = cudaMalloc ? cudaMalloc(NULL, 8) : 0;
    CUresult result = cuInit ? cuInit(0) : 0;
    int count = 0;
    if (cuInit && result == 0) cuDeviceGetCount(&count);
    /* Standard error is not compared. */
    fprintf(stderr, "cuInit %s, says %u; ", cuInit ? "is there" : "is null", result);
    fprintf(stderr, "cudaMalloc %s, says %u\n", cudaMalloc ? "is there" : "is null", runtime);
    printf("%d devices\n", count);
    return 0;
}
