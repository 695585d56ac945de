/* Ways past a preloaded library. Usage: bypass deepbind|dlmopen PLUGIN */
#include "driver.h"

int main(int argc, char **argv) {
    if (!strcmp(argv[1], "deepbind")) {
        driver("dlsym");
        start();
        allocate(1000);
        void *plugin = dlopen(argv[2], RTLD_NOW | RTLD_DEEPBIND);
        if (!plugin) return puts(dlerror()), 71;
        CUdeviceptr (*allocates)(void) = (CUdeviceptr (*)(void))dlsym(plugin, "plugin_allocates");
        CUdeviceptr address = allocates();
        printf("allocated: %d\n", address != 0);
        MUST(cuMemFree_v2, address);
        return 0;
    }
    void *driver_again = dlmopen(LM_ID_NEWLM, "libcuda.so.1", RTLD_NOW);
    if (!driver_again) return puts("no second namespace"), 0;
    CUresult (*init)(unsigned) = (CUresult (*)(unsigned))dlsym(driver_again, "cuInit");
    CUresult (*retain)(CUhandle *, CUdevice) = (CUresult (*)(CUhandle *, CUdevice))dlsym(driver_again, "cuDevicePrimaryCtxRetain");
    CUresult (*set)(CUhandle) = (CUresult (*)(CUhandle))dlsym(driver_again, "cuCtxSetCurrent");
    CUresult (*alloc)(CUdeviceptr *, size_t) = (CUresult (*)(CUdeviceptr *, size_t))dlsym(driver_again, "cuMemAlloc_v2");
    CUhandle context = NULL;
    CUdeviceptr address = 0;
    CUresult results[4] = {init(0), retain(&context, 0), set(context), alloc(&address, 100)};
    printf("%u %u %u %u\n", results[0], results[1], results[2], results[3]);
    return 0;
}
