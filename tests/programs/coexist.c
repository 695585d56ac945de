/* Usage: coexist ROUTE */
#include "driver.h"

static void some(void) {
    CUdeviceptr address[3];
    size_t available, total;
    for (int i = 0; i < 3; i++) MUST(cuMemAlloc_v2, &address[i], 1000);
    MUST(cuMemFree_v2, address[1]);
    left("device", "cuMemAlloc_v2", 2000, 2);
    MUST(cuMemGetInfo_v2, &available, &total);
    printf("limited: %d\n", total == 1234567);
}

int main(int argc, char **argv) {
    driver(argv[1]);
    start();
    some();
    return 0;
}
