/* Threads that all come first: each makes its first driver call, and an allocation, at the same moment. */
#include "driver.h"
#include <pthread.h>

enum { THREADS = 8 };

static pthread_barrier_t together;

static void *come(void *argument) {
    CUhandle context;
    (void)argument;
    pthread_barrier_wait(&together);
    MUST(cuDevicePrimaryCtxRetain, &context, 0);
    MUST(cuCtxSetCurrent, context);
    allocate(1000);
    return NULL;
}

int main(void) {
    pthread_t threads[THREADS];
    driver("dlsym");
    MUST(cuInit, 0);
    pthread_barrier_init(&together, NULL, THREADS);
    for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, come, NULL);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    return 0;
}
