/* Forbids itself the time-stamp counter. Usage: counter WHEN
 *   early     before the first use of CUDA
 *   unheard   the same, by a system call that no library hears of
 *   late      once the recorder has measured the counter's rate
 *   crowd     late, and then several threads want the recorder at once */
#include "driver.h"
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#define ROUNDS 3000

static void forbid(int heard) {
    int result = heard ? prctl(PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0) : syscall(SYS_prctl, PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0);
    if (result) puts("unsupported"), exit(0);
}

/* Asking for what is set must go through our way too. */
static void check(void) {
    int mode = 0;
    if (prctl(PR_GET_TSC, &mode) || mode != PR_TSC_SIGSEGV) exit(76);
    if (prctl(-1) != -1) exit(77);
}

static void *use(void *context) {
    MUST(cuCtxSetCurrent, context);
    for (int i = 0; i < ROUNDS; i++) {
        CUdeviceptr address;
        MUST(cuMemAlloc_v2, &address, 512);
        MUST(cuMemFree_v2, address);
    }
    return NULL;
}

static void leak(void) {
    CUdeviceptr address;
    for (int i = 0; i < 10; i++) MUST(cuMemAlloc_v2, &address, 4321);
    left("device", "cuMemAlloc_v2", 43210, 10);
}

int main(int argc, char **argv) {
    CUhandle context;
    int late = !strcmp(argv[1], "late") || !strcmp(argv[1], "crowd");
    driver("dlsym");
    if (!late) forbid(!strcmp(argv[1], "early"));
    start();
    MUST(cuDevicePrimaryCtxRetain, &context, 0);
    if (late) {
        struct timespec pause = {0, 100000000};
        nanosleep(&pause, NULL);
        use(context);
        forbid(1);
    }
    check();
    use(context);
    if (!strcmp(argv[1], "crowd")) {
        pthread_t threads[4];
        for (int i = 0; i < 4; i++)
            if (pthread_create(&threads[i], NULL, use, context)) exit(75);
        for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    }
    leak();
    return 0;
}
