/* Allocations from several places, many of them freed again, by several threads.
 *   storm N THREADS   N rounds of blocks a thread; says what is left */
#include "driver.h"
#include <pthread.h>

static unsigned rounds;

__attribute__((noinline)) static CUdeviceptr small(void) {
    CUdeviceptr address;
    MUST(cuMemAllocAsync, &address, 512, NULL);
    return address;
}

__attribute__((noinline)) static CUdeviceptr middling(unsigned n) {
    CUdeviceptr address;
    MUST(cuMemAllocAsync, &address, 4096 + 512 * (n % 32), NULL);
    return address;
}

__attribute__((noinline)) static CUdeviceptr passing(void) {
    CUdeviceptr address;
    MUST(cuMemAllocAsync, &address, 2048, NULL);
    return address;
}

static void *storm(void *context) {
    MUST(cuCtxSetCurrent, context);
    for (unsigned n = 0; n < rounds; n++) {
        small();
        middling(n);
        CUdeviceptr address = passing();
        MUST(cuMemFreeAsync, address, NULL);
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 3) return 64;
    rounds = (unsigned)atoi(argv[1]);
    int count = atoi(argv[2]);
    driver("dlsym");
    CUhandle context;
    MUST(cuInit, 0);
    MUST(cuDevicePrimaryCtxRetain, &context, 0);
    MUST(cuCtxSetCurrent, context);
    pthread_t threads[64];
    for (int i = 0; i < count && i < 64; i++) pthread_create(&threads[i], NULL, storm, context);
    for (int i = 0; i < count && i < 64; i++) pthread_join(threads[i], NULL);
    unsigned long long middle = 0, all = (unsigned long long)rounds * (unsigned)count;
    for (unsigned n = 0; n < rounds; n++) middle += 4096 + 512 * (n % 32);
    printf("left async cuMemAllocAsync %llu %llu small\n", all * 512, all);
    printf("left async cuMemAllocAsync %llu %llu middling\n", middle * (unsigned)count, all);
    fflush(stdout);
    _exit(0);
}
