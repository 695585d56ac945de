/* Something that exports what a Python interpreter does, and is none. Built with
 *   -DVERSION=0x03100000   its version
 *   -DSTATE=...            what a thread's state is
 *   -DFREE=1               it says that it is a free-threaded build */
#include "driver.h"

char PyCode_Type[400], PyUnicode_Type[400], PyBytes_Type[400];
const unsigned long Py_Version = VERSION;
struct { char cookie[8]; unsigned long long version, free_threaded; } _PyRuntime = {{'x', 'd', 'e', 'b', 'u', 'g', 'p', 'y'}, VERSION, FREE};
static unsigned long long memory[64];
void *PyGILState_GetThisThreadState(void) { return STATE; }
int Py_IsFinalizing(void) { return 0; }

static void leak(void) {
    CUdeviceptr address;
    for (int n = 0; n < 3; n++) {
        MUST(cuMemAlloc_v2, &address, 1000);
        MUST(cuMemAllocAsync, &address, 500, NULL);
    }
}

int main(int argc, char **argv) {
    driver("dlsym");
    CUhandle context;
    MUST(cuInit, 0);
    MUST(cuCtxCreate_v2, &context, 0, 0);
    /* For states that lead to something: frames whose code is no code. */
    for (int n = 0; n < 64; n++) memory[n] = (unsigned long long)memory;
    leak();
    return 0;
}
