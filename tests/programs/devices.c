/* Leaks (1 + device) x 1000 bytes on each device; frees each device's other allocation while another one is current. */
#include "driver.h"

static CUdeviceptr on(CUdevice device, CUdeviceptr *other) {
    CUhandle context;
    CUdeviceptr address;
    MUST(cuDevicePrimaryCtxRetain, &context, device);
    MUST(cuCtxSetCurrent, context);
    *other = allocate(77);
    MUST(cuMemAlloc_v2, &address, 1000 * (device + 1));
    left("device", "cuMemAlloc_v2", 1000 * (device + 1), 1);
    return address;
}

int main(void) {
    int count = 0;
    CUdeviceptr other[16];
    driver("dlsym");
    MUST(cuInit, 0);
    MUST(cuDeviceGetCount, &count);
    for (int device = 0; device < count; device++) on(device, &other[device]);
    for (int device = 0; device < count; device++) MUST(cuMemFree_v2, other[device]);
    return 0;
}
