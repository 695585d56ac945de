/* Allocations that fail for lack of memory. Usage: oom WHAT [FAMILY | NUMBER]
 *
 * The device has 2 GiB (VRAMTRACE_SIM_MEMORY). What a call came to is printed, so that runs can be compared. */
#include "driver.h"
#include <pthread.h>
#include <time.h>

#define MIB (1ull << 20)
#define GIB (1ull << 30)

static CUhandle stream, other, pool;

/* The default pool keeps what it has, as programs ask it to that want cudaMallocAsync to be fast. */
static void keep_all(CUhandle of) {
    unsigned long long all = ~0ull;
    MUST(cuMemPoolSetAttribute, of, 4, &all);
}

static CUhandle own_pool(void) {
    CUmemPoolProps properties = {.type = 1, .location = {1, 0}};
    CUhandle made;
    MUST(cuMemPoolCreate, &made, &properties);
    keep_all(made);
    return made;
}

/* Pools hold so much of the device, and use none of it. */
static void hoard(void) {
    CUdeviceptr block, another;
    CUhandle standard;
    MUST(cuDeviceGetDefaultMemPool, &standard, 0);
    keep_all(standard);
    MUST(cuMemAllocAsync, &block, 800 * MIB, NULL);
    MUST(cuMemAllocFromPoolAsync, &another, 500 * MIB, pool, stream);
    /* Freed on a stream that nobody waits for, and on one that the legacy stream does not. */
    MUST(cuMemFreeAsync, block, NULL);
    MUST(cuMemFreeAsync, another, stream);
}

/* So much is in use. */
static void fill(void) {
    CUdeviceptr block;
    MUST(cuMemAlloc_v2, &block, 1300 * MIB);
}

/* 1 GiB, by this family of calls. */
static CUresult ask(const char *family) {
    CUdeviceptr address = 0;
    CUhandle array = NULL;
    unsigned long long handle = 0;
    size_t pitch = 0;
    CUmemAllocationProp physical = {.type = 1, .location = {1, 0}};
    CUDA_ARRAY_DESCRIPTOR flat = {16384, 16384, FORMAT_FLOAT, 1};
    CUDA_ARRAY3D_DESCRIPTOR deep = {16384, 16384, 0, FORMAT_FLOAT, 1, 0};
    if (!strcmp(family, "linear")) return CU(cuMemAlloc_v2)(&address, GIB);
    if (!strcmp(family, "pitched")) return CU(cuMemAllocPitch_v2)(&address, &pitch, 1 << 20, 1 << 10, 4);
    if (!strcmp(family, "managed")) return CU(cuMemAllocManaged)(&address, GIB, 1);
    if (!strcmp(family, "async")) return CU(cuMemAllocAsync)(&address, GIB, other);
    if (!strcmp(family, "pool")) return CU(cuMemAllocFromPoolAsync)(&address, GIB, own_pool(), other);
    if (!strcmp(family, "vmm")) return CU(cuMemCreate)(&handle, GIB, &physical, 0);
    if (!strcmp(family, "array")) return CU(cuArrayCreate_v2)(&array, &flat);
    if (!strcmp(family, "array3d")) return CU(cuArray3DCreate_v2)(&array, &deep);
    if (!strcmp(family, "mipmap")) return CU(cuMipmappedArrayCreate)(&array, &deep, 1);
    if (!strcmp(family, "pinned")) {
        void *host;
        return CU(cuMemHostAlloc)(&host, GIB, 0);
    }
    fprintf(stderr, "no such family: %s\n", family);
    exit(64);
}

static void report(const char *family) { printf("%s %u\n", family, ask(family)), fflush(stdout); }

/* Many failures, none like the one before. */
static void storm(int times) {
    for (int i = 0; i < times; i++) {
        CUdeviceptr address;
        CUresult result = CU(cuMemAlloc_v2)(&address, 4 * GIB + 512ull * i);
        if (result != 2) printf("storm %d: %u\n", i, result);
    }
}

static volatile int going = 1;
/* Pauses now and then, so that a slow machine can keep up with what is written. */
static int unhurried;
/* How many of them hold something: only then is there anything to look at. */
static _Atomic int holding;

/* Allocates and frees all the time; with an argument, from pools and on streams of its own that come and go. */
static void *busy(void *pools) {
    CUhandle context, own;
    MUST(cuDevicePrimaryCtxRetain, &context, 0);
    MUST(cuCtxSetCurrent, context);
    MUST(cuStreamCreate, &own, 1);
    CUdeviceptr held[64] = {0};
    while (pools && going) {
        CUhandle mine = own_pool();
        CUhandle brief;
        MUST(cuStreamCreate, &brief, 1);
        MUST(cuMemAllocFromPoolAsync, &held[0], MIB, mine, brief);
        MUST(cuMemFreeAsync, held[0], brief);
        MUST(cuStreamDestroy_v2, brief);
        MUST(cuMemPoolDestroy, mine);
        held[0] = 0;
    }
    for (unsigned i = 0; going; i++) {
        CUdeviceptr *one = &held[i * 7 % 64];
        if (*one) MUST(cuMemFreeAsync, *one, own);
        MUST(cuMemAllocAsync, one, 512 + i % 9 * 512, own);
        if (!i) holding++;
        struct timespec moment = {0, 1000000};
        if (unhurried && i % 64 == 0) nanosleep(&moment, NULL);
    }
    for (int i = 0; i < 64; i++)
        if (held[i]) MUST(cuMemFreeAsync, held[i], own);
    return NULL;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "", *which = argc > 2 ? argv[2] : "linear";
    driver("dlsym");
    start();
    MUST(cuStreamCreate, &stream, 1);
    MUST(cuStreamCreate, &other, 1);
    pool = own_pool();
    if (!strcmp(what, "hoarded")) { /* trimming helps */
        hoard();
        report(which);
    } else if (!strcmp(what, "full")) { /* nothing helps */
        fill();
        report(which);
    } else if (!strcmp(what, "capture")) { /* trimming would help, but would destroy the capture */
        CUhandle graph = NULL;
        unsigned status = 9;
        hoard();
        MUST(cuStreamBeginCapture_v2, stream, 2); /* relaxed: the allocation itself is legal */
        report(which);
        CUresult asked = CU(cuStreamIsCapturing)(stream, &status);
        printf("capturing %u %u\n", asked, status);
        CUresult ended = CU(cuStreamEndCapture)(stream, &graph);
        printf("end %u %d\n", ended, graph != NULL);
    } else if (!strcmp(what, "storm")) {
        fill();
        storm(atoi(which));
        printf("over\n");
    } else if (!strcmp(what, "killed")) { /* the test kills it */
        fill();
        report("linear");
        for (;;) pause();
    } else if (!strcmp(what, "storm-killed")) { /* likewise, in the middle of it */
        fill();
        printf("ready\n"), fflush(stdout);
        for (;;) storm(1000);
    } else if (!strcmp(what, "forgotten")) { /* the log forgets the failure */
        fill();
        report("linear");
        for (int i = 0; i < atoi(which); i++) {
            CUdeviceptr address = allocate(4096);
            MUST(cuMemFree_v2, address);
        }
    } else if (!strcmp(what, "moved")) { /* the directory of the trace goes away */
        char gone[4096];
        snprintf(gone, sizeof gone, "%s.gone", which);
        fill();
        if (rename(which, gone)) perror(which), exit(66);
        report("linear");
        report("linear");
    } else if (!strcmp(what, "elsewhere")) { /* the memory of another device than the current one */
        CUmemAllocationProp physical = {.type = 1, .location = {1, 1}};
        unsigned long long handle;
        CUmemPoolProps properties = {.type = 1, .location = {1, 1}};
        CUhandle far;
        CUdeviceptr address, block;
        MUST(cuMemPoolCreate, &far, &properties);
        keep_all(far);
        MUST(cuMemAllocFromPoolAsync, &block, 1300 * MIB, far, stream);
        MUST(cuMemFreeAsync, block, stream);
        printf("create %u\n", CU(cuMemCreate)(&handle, GIB, &physical, 0));
        CUhandle another;
        MUST(cuMemPoolCreate, &another, &properties);
        printf("pool %u\n", CU(cuMemAllocFromPoolAsync)(&address, 2 * GIB, another, stream));
    } else if (!strcmp(what, "destroys")) { /* pools come and go in other threads meanwhile */
        pthread_t threads[3];
        for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, busy, (void *)1);
        fill();
        for (int i = 0; i < atoi(which); i++) {
            CUdeviceptr block, address;
            MUST(cuMemAllocAsync, &block, 64 * MIB, stream);
            MUST(cuMemFreeAsync, block, stream);
            CUresult result = CU(cuMemAlloc_v2)(&address, 4 * GIB + 512ull * i);
            if (result != 2) printf("failed %u\n", result);
        }
        going = 0;
        for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
        printf("over\n");
    } else if (!strcmp(what, "endless")) { /* the test looks on, and kills it */
        pthread_t threads[2];
        unhurried = 1;
        for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, busy, NULL);
        while (holding < 2) sched_yield();
        printf("ready\n"), fflush(stdout);
        for (;;) pause();
    } else if (!strcmp(what, "busy")) { /* other threads go on */
        pthread_t threads[3];
        for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, busy, NULL);
        for (int i = 0; i < 4; i++) {
            CUdeviceptr address;
            struct timespec moment = {0, 30000000};
            nanosleep(&moment, NULL);
            printf("failed %u\n", CU(cuMemAlloc_v2)(&address, 4 * GIB + 512ull * i));
        }
        going = 0;
        for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    } else {
        return 64;
    }
    return 0;
}
