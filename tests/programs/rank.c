/* One rank of several: keeps so many MiB, in blocks of one. Usage: rank MIB */
#include "driver.h"

static void keep(void) {
    CUdeviceptr address;
    MUST(cuMemAlloc_v2, &address, 1 << 20);
}

int main(int argc, char **argv) {
    CUhandle context;
    driver("dlsym");
    start();
    MUST(cuDevicePrimaryCtxRetain, &context, 0);
    MUST(cuCtxSetCurrent, context);
    for (int left = argc > 1 ? atoi(argv[1]) : 0; left > 0; left--) keep();
    return 0;
}
