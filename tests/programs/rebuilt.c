/* The same program in two builds. With -DLATER its code lies elsewhere, its lines have moved, and it holds one block more.
 * Usage: rebuilt */
#include "driver.h"

#ifdef LATER
static volatile int padding[64];
static void moved(int to) {
    for (int i = 0; i < 64; i++) padding[i] = padding[(i + to) % 64] * 3 + i;
}
#define BLOCKS 3
#line 100
#else
static void moved(int to) {}
#define BLOCKS 2
#endif

static void weights(void) {
    CUdeviceptr address;
    moved(1);
    MUST(cuMemAlloc_v2, &address, 4096);
}

static void cache(void) {
    CUdeviceptr address;
    moved(2);
    for (int i = 0; i < BLOCKS; i++) MUST(cuMemAlloc_v2, &address, 1000);
}

int main(void) {
    driver("dlsym");
    CUhandle context;
    MUST(cuInit, 0);
    MUST(cuCtxCreate_v2, &context, 0, 0);
    weights();
    cache();
    return 0;
}
