/* What Python programs of the tests need in C: threads that Python did not make, and allocations in quick succession. */
#include "driver.h"
#include <pthread.h>

static void *call(void *callback) {
    ((void (*)(void))callback)();
    return NULL;
}

void on_a_new_thread(void (*callback)(void)) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, call, (void *)callback)) abort();
    pthread_join(thread, NULL);
}

struct wish { CUhandle context; size_t bytes; };

static void *without_python(void *argument) {
    struct wish *wish = argument;
    CUdeviceptr address;
    MUST(cuCtxSetCurrent, wish->context);
    MUST(cuMemAllocAsync, &address, wish->bytes, NULL);
    return NULL;
}

void allocate_on_a_new_thread(CUhandle context, size_t bytes) {
    struct wish wish = {context, bytes};
    pthread_t thread;
    if (pthread_create(&thread, NULL, without_python, &wish)) abort();
    pthread_join(thread, NULL);
}

/* The driver goes down while threads run that nobody waits for: CUDA_ERROR_DEINITIALIZED. */
static void check(CUresult result) {
    if (result == 4)
        for (;;) pause();
    if (result) abort();
}

void storm(unsigned count, size_t bytes) {
    for (unsigned n = 0; n < count; n++) {
        CUdeviceptr address;
        check(CU(cuMemAllocAsync)(&address, bytes, NULL));
        check(CU(cuMemFreeAsync)(address, NULL));
    }
}
