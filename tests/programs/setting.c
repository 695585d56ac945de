/* Leaks one block; says so, and how its descriptors are. Usage: setting [closed] */
#include "driver.h"
#include <errno.h>
#include <fcntl.h>

static void leak(void) {
    CUdeviceptr address;
    MUST(cuMemAlloc_v2, &address, 4321);
    left("device", "cuMemAlloc_v2", 4321, 1);
}

int main(int argc, char **argv) {
    int closed = argc > 1 && !strcmp(argv[1], "closed");
    driver("dlsym");
    if (closed)
        for (int fd = 0; fd < 3; fd++) close(fd);
    errno = 77;
    CUhandle context;
    CUdeviceptr address;
    CUresult results = CU(cuInit)(0) + CU(cuDevicePrimaryCtxRetain)(&context, 0) + CU(cuCtxSetCurrent)(context);
    if (closed) {
        results += CU(cuMemAlloc_v2)(&address, 4321);
        int lowest = open("/dev/null", O_RDONLY);
        return results ? 79 : lowest; /* who takes descriptor 0 gets what the program prints */
    }
    if (results) return 79;
    leak();
    return 0;
}
