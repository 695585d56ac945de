/* More than a small trace can hold.
 *   bounded churn N    N allocations that are freed, around a few that are not
 *   bounded live N     N allocations that are not freed
 *   bounded stacks N   N allocations from N different stacks, freed but for the last ten */
#include "driver.h"


static void before(void) {
    CUdeviceptr address;
    MUST(cuMemAlloc_v2, &address, 1111);
    left("device", "cuMemAlloc_v2", 1111, 1);
}

static void between(unsigned i) {
    CUdeviceptr address;
    if (i != 5) return;
    MUST(cuMemAlloc_v2, &address, 33);
    left("device", "cuMemAlloc_v2", 33, 1);
}

static void after(void) {
    CUdeviceptr address;
    MUST(cuMemAlloc_v2, &address, 2222);
    left("device", "cuMemAlloc_v2", 2222, 1);
}

static void churn(unsigned n) {
    before();
    for (unsigned i = 0; i < n; i++) {
        CUdeviceptr plain, block;
        MUST(cuMemAlloc_v2, &plain, 100 + i % 7);
        MUST(cuMemAllocAsync, &block, 200 + i % 7, NULL);
        between(i);
        MUST(cuMemFree_v2, plain);
        MUST(cuMemFreeAsync, block, NULL);
    }
    after();
}

static void live(unsigned n) {
    for (unsigned i = 0; i < n; i++) allocate(1000);
    printf("live %u\n", n);
}

static CUdeviceptr path(unsigned bits, int depth);
static CUdeviceptr one(unsigned bits, int depth) { return path(bits, depth); }
static CUdeviceptr other(unsigned bits, int depth) { return path(bits, depth); }
static CUdeviceptr path(unsigned bits, int depth) {
    if (depth == 0) return allocate(500);
    return (bits & 1 ? one : other)(bits >> 1, depth - 1);
}

static void stacks(unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        CUdeviceptr address = path(i, 20);
        if (i + 10 < n) MUST(cuMemFree_v2, address);
    }
    printf("left 10\n");
}

int main(int argc, char **argv) {
    unsigned n = atoi(argv[2]);
    driver("dlsym");
    start();
    if (!strcmp(argv[1], "churn")) churn(n);
    if (!strcmp(argv[1], "live")) live(n);
    if (!strcmp(argv[1], "stacks")) stacks(n);
    return 0;
}
