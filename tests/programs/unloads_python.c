/* Loads something that looks like a Python interpreter, allocates, and unloads it. Usage: unloads_python LIBRARY */
#include "driver.h"

static void leak(void) {
    CUdeviceptr address;
    for (int n = 0; n < 3; n++) {
        MUST(cuMemAlloc_v2, &address, 1000);
        MUST(cuMemAlloc_v2, &address, 7);
        MUST(cuMemFree_v2, address);
    }
}

int main(int argc, char **argv) {
    driver("dlsym");
    void *python = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (!python) { puts(dlerror()); return 90; }
    CUhandle context;
    MUST(cuInit, 0);
    MUST(cuCtxCreate_v2, &context, 0, 0);
    leak();
    void *function = dlsym(python, "PyGILState_GetThisThreadState");
    if (dlclose(python)) return 91;
    Dl_info info;
    if (dladdr(function, &info)) return 92;
    leak();
    return 0;
}
