/* A call fails or answers late (by VRAMTRACE_SIM_FAIL), and meanwhile another thread changes the same memory.
 * Usage: meanwhile WHAT */
#include "driver.h"
#include <pthread.h>
#include <sched.h>

#define MIB (1ul << 20)

static unsigned (*waiting)(void);
static unsigned long long handle, again;
static CUdeviceptr address;

static void create(void) {
    CUmemAllocationProp props = {.type = 1, .location = {1, 0}};
    MUST(cuMemAddressReserve, &address, 2 * MIB, 0, 0, 0);
    MUST(cuMemCreate, &handle, 2 * MIB, &props, 0);
}

static void create_mapped(void) {
    create();
    MUST(cuMemMap, address, 2 * MIB, 0, handle, 0);
}

/* Runs `act` in another thread while this thread's call is in the driver, about to fail. */
static void (*other)(void);
static void *in_the_middle(void *nothing) {
    while (!waiting()) sched_yield();
    other();
    return nothing;
}

static pthread_t meanwhile(void (*act)(void)) {
    pthread_t thread;
    other = act;
    if (pthread_create(&thread, NULL, in_the_middle, NULL)) exit(75);
    return thread;
}

static void map(void) { MUST(cuMemMap, address, 2 * MIB, 0, handle, 0); }
static void release(void) { MUST(cuMemRelease, handle); }
static void release_and_unmap(void) {
    MUST(cuMemRelease, handle);
    MUST(cuMemUnmap, address, 2 * MIB);
}

/* The mapping made meanwhile keeps the memory. */
static void release_fails(void) {
    create();
    pthread_t thread = meanwhile(map);
    printf("release %u\n", CU(cuMemRelease)(handle));
    pthread_join(thread, NULL);
    MUST(cuMemRelease, handle);
}

/* The handle released meanwhile is gone: the mapping was the last. */
static void unmap_fails(void) {
    create_mapped();
    pthread_t thread = meanwhile(release);
    printf("unmap %u\n", CU(cuMemUnmap)(address, 2 * MIB));
    pthread_join(thread, NULL);
    MUST(cuMemUnmap, address, 2 * MIB);
    MUST(cuMemAddressFree, address, 2 * MIB);
}

/* No handle comes, and meanwhile everything else went. */
static void retain_fails(void) {
    create_mapped();
    pthread_t thread = meanwhile(release_and_unmap);
    printf("retain %u\n", CU(cuMemRetainAllocationHandle)(&again, (void *)(uintptr_t)address));
    pthread_join(thread, NULL);
    MUST(cuMemAddressFree, address, 2 * MIB);
}

/* No mapping comes, and meanwhile the handle went. */
static void map_fails(void) {
    create();
    pthread_t thread = meanwhile(release);
    printf("map %u\n", CU(cuMemMap)(address, 2 * MIB, 0, handle, 0));
    pthread_join(thread, NULL);
    MUST(cuMemAddressFree, address, 2 * MIB);
}

static void retain_primary(void) {
    CUhandle context;
    MUST(cuDevicePrimaryCtxRetain, &context, 0);
}

/* The last release resets, whoever retains right after it. */
static void last_release(void) {
    allocate(1000);
    pthread_t thread = meanwhile(retain_primary);
    printf("last-release %u\n", CU(cuDevicePrimaryCtxRelease_v2)(0));
    pthread_join(thread, NULL);
    allocate(30);
}

int main(int argc, char **argv) {
    driver("dlsym");
    waiting = (unsigned (*)(void))dlsym(dlopen("libcuda.so.1", RTLD_NOW), "vramtrace_sim_waiting");
    start();
    if (!strcmp(argv[1], "release")) release_fails();
    if (!strcmp(argv[1], "unmap")) unmap_fails();
    if (!strcmp(argv[1], "retain")) retain_fails();
    if (!strcmp(argv[1], "map")) map_fails();
    if (!strcmp(argv[1], "last-release")) last_release();
    return 0;
}
