/* Pools beyond the usual. Usage: pools WHAT */
#include "driver.h"

#define MIB (1ul << 20)

static CUhandle pool_at(unsigned type, int id) {
    CUmemPoolProps props = {.type = 1, .location = {type, id}};
    CUhandle pool;
    MUST(cuMemPoolCreate, &pool, &props);
    return pool;
}

/* Not a function: whoever allocates is the innermost function of the stack. */
#define block(pool, bytes) \
    ({ \
        CUdeviceptr address_; \
        MUST(cuMemAllocFromPoolAsync, &address_, bytes, pool, NULL); \
        address_; \
    })

/* A driver never takes what cuMemFree frees off the pool's used bytes. */
static void destroyed(void) {
    CUdeviceptr kept[3];
    CUhandle pool = pool_at(1, 0);
    for (int i = 0; i < 3; i++) kept[i] = block(pool, 3 * MIB + 1);
    MUST(cuMemFree_v2, kept[0]);
    MUST(cuMemPoolDestroy, pool); /* deferred: blocks are live */
    for (int i = 1; i < 3; i++) MUST(cuMemFreeAsync, kept[i], NULL);
}

static void destroyed_empty(void) {
    CUhandle pool = pool_at(1, 0);
    MUST(cuMemFree_v2, block(pool, MIB));
    MUST(cuMemPoolDestroy, pool);
}

/* The last block's free fails first (by VRAMTRACE_SIM_FAIL). */
static void destroyed_failing(void) {
    CUhandle pool = pool_at(1, 0);
    CUdeviceptr last = block(pool, MIB);
    MUST(cuMemPoolDestroy, pool);
    printf("free %u\n", CU(cuMemFreeAsync)(last, NULL));
    printf("free %u\n", CU(cuMemFreeAsync)(last, NULL));
}

/* The first destroy fails (by VRAMTRACE_SIM_FAIL): the pool is as it was. */
static void kept(void) {
    CUhandle pool = pool_at(1, 0);
    printf("destroy %u\n", CU(cuMemPoolDestroy)(pool));
    block(pool, 5 * MIB);
    left("async", "cuMemAllocFromPoolAsync", 5 * MIB, 1);
}

/* The pools are another device's than the context. */
static void other_device(void) {
    CUhandle pool;
    MUST(cuDeviceGetDefaultMemPool, &pool, 1);
    block(pool, 7000);
    block(pool_at(1, 1), 5000);
    left("async", "cuMemAllocFromPoolAsync", 12000, 2);
}

/* Memory of the host, which also outlives the context. */
static void host(void) {
    CUhandle context, pool = pool_at(2, 0);
    MUST(cuCtxCreate_v2, &context, 0, 0);
    CUdeviceptr freed = block(pool, 1000);
    block(pool, 3000);
    MUST(cuMemFreeAsync, freed, NULL);
    MUST(cuCtxDestroy_v2, context);
    left("pinned", "cuMemAllocFromPoolAsync", 3000, 1);
}

int main(int argc, char **argv) {
    driver("dlsym");
    start();
    if (!strcmp(argv[1], "destroyed")) destroyed();
    if (!strcmp(argv[1], "destroyed-empty")) destroyed_empty();
    if (!strcmp(argv[1], "destroyed-failing")) destroyed_failing();
    if (!strcmp(argv[1], "kept")) kept();
    if (!strcmp(argv[1], "other-device")) other_device();
    if (!strcmp(argv[1], "host")) host();
    return 0;
}
