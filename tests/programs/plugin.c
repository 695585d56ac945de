/* A library that allocates by calling the driver that it is linked to. */
#define LINKED
#include "driver.h"
#ifndef BYTES
#define BYTES 5000
#endif

CUdeviceptr plugin_allocates(void) {
    CUdeviceptr address = 0;
    CUresult result = cuMemAlloc_v2(&address, BYTES);
    return result ? 0 : address;
}
