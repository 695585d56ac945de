/* Makes memory visible to others in every way, and sets a limit. */
#include "driver.h"

#define FILE_DESCRIPTOR 1

static CUresult call(const char *name, unsigned long long a, unsigned long long b, unsigned long long c, unsigned long long d) {
    CUresult (*function)() = dlsym(dlopen("libcuda.so.1", RTLD_NOW), name);
    CUresult result = function(a, b, c, d);
    if (result) fprintf(stderr, "%s = %u\n", name, result), exit(70);
    return result;
}
#define AT(place) ((unsigned long long)(uintptr_t)(place))

int main(void) {
    CUmemAllocationProp physical = {.type = 1, .handle_types = FILE_DESCRIPTOR, .location = {1, 0}};
    CUmemPoolProps shared = {.type = 1, .handle_types = FILE_DESCRIPTOR, .location = {1, 0}};
    CUipcMemHandle ipc;
    CUdeviceptr plain, block;
    CUhandle pool;
    unsigned long long handle;
    unsigned char pointer[64];
    int fd = -1;
    driver("dlsym");
    start();
    MUST(cuMemAlloc_v2, &plain, 1000);
    MUST(cuIpcGetMemHandle, &ipc, plain);
    MUST(cuMemCreate, &handle, 2 << 20, &physical, 0);
    MUST(cuMemExportToShareableHandle, &fd, handle, FILE_DESCRIPTOR, 0);
    close(fd);
    MUST(cuMemPoolCreate, &pool, &shared);
    MUST(cuMemAllocFromPoolAsync, &block, 3000, pool, NULL);
    call("cuMemPoolExportToShareableHandle", AT(&fd), AT(pool), FILE_DESCRIPTOR, 0);
    close(fd);
    call("cuMemPoolExportPointer", AT(pointer), block, 0, 0);
    if (!CU(cuIpcGetMemHandle)(&ipc, 0xdead000)) return 71; /* exports nothing */
    call("cuCtxSetLimit", 2, 64 << 20, 0, 0);
    return 0;
}
