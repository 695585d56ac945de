/* Things that go wrong. Usage: failures WHAT */
#include "driver.h"
#include <time.h>

static unsigned long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static CUdeviceptr leak(size_t bytes) {
    CUdeviceptr address;
    MUST(cuMemAlloc_v2, &address, bytes);
    return address;
}

static void pause_for(long milliseconds) {
    struct timespec time = {0, milliseconds * 1000000};
    nanosleep(&time, NULL);
}

/* The first free fails (by VRAMTRACE_SIM_FAIL): the block stays, as old as it is. */
static void failed_free(void) {
    unsigned long long before = now();
    CUdeviceptr kept = leak(1000);
    unsigned long long after = now();
    CUdeviceptr freed = leak(2000);
    pause_for(20);
    printf("free %u\n", CU(cuMemFree_v2)(kept));
    printf("free %u\n", CU(cuMemFree_v2)(freed));
    printf("between %llu %llu\n", before, after);
}

static void out_of_memory(void) {
    CUdeviceptr address = 5;
    void *host;
    leak(1000);
    printf("alloc %u\n", CU(cuMemAlloc_v2)(&address, 1ull << 42));
    printf("async %u\n", CU(cuMemAllocAsync)(&address, 1ull << 42, NULL));
    printf("zero %u\n", CU(cuMemAlloc_v2)(&address, 0));
    printf("null %u\n", CU(cuMemAlloc_v2)(NULL, 10));
    printf("host %u\n", CU(cuMemHostAlloc)(&host, 100, 0) != 0);
}

/* Every free from the second on fails with an error that stays (by VRAMTRACE_SIM_FAIL). */
static void sticky(void) {
    CUdeviceptr address[4];
    for (int i = 0; i < 4; i++) address[i] = leak(1000);
    for (int i = 0; i < 4; i++) printf("free %u\n", CU(cuMemFree_v2)(address[i]));
}

static void unknown(void) {
    CUdeviceptr address = leak(1000), freed = leak(2000);
    printf("inside %u\n", CU(cuMemFree_v2)(address + 256));
    printf("nowhere %u\n", CU(cuMemFree_v2)(0xdeadbeef000));
    printf("first %u\n", CU(cuMemFree_v2)(freed));
    printf("second %u\n", CU(cuMemFree_v2)(freed));
    printf("host %u\n", CU(cuMemFreeHost)(&address));
    printf("unregister %u\n", CU(cuMemHostUnregister)(&address));
    printf("array %u\n", CU(cuArrayDestroy)(NULL) != 0);
    printf("null %u\n", CU(cuMemFree_v2)(0));
    printf("release %u\n", CU(cuMemRelease)(12345));
    printf("unmap %u\n", CU(cuMemUnmap)(0x1000, 4096));
}

/* Every address is handed out many times. */
static void reuse(void) {
    for (int i = 0; i < 2000; i++) {
        CUdeviceptr plain = leak(512), block;
        MUST(cuMemAllocAsync, &block, 512, NULL);
        MUST(cuMemFree_v2, plain);
        MUST(cuMemFreeAsync, block, NULL);
    }
}

/* Every kind of call inside and around captures in global mode, where an unsafe call destroys the capture. */
static void capture(void) {
    CUhandle stream, other, graph = NULL, executable = NULL, pool;
    CUdeviceptr before = leak(4096), inside = 0, beside = 0;
    unsigned capturing = 9;
    unsigned long long reserved = 0;
    MUST(cuStreamCreate, &stream, 1);
    MUST(cuStreamCreate, &other, 1);
    MUST(cuDeviceGetDefaultMemPool, &pool, 0);
    MUST(cuMemAllocAsync, &beside, 100, other);
    for (int round = 0; round < 3; round++) {
        printf("begin %u\n", CU(cuStreamBeginCapture_v2)(stream, 0));
        printf("alloc %u\n", CU(cuMemAllocAsync)(&inside, 1000 + round, stream));
        printf("memset %u\n", CU(cuMemsetD8Async)(inside, 7, 1000, stream));
        printf("memset %u\n", CU(cuMemsetD8Async)(before, 7, 4096, stream));
        if (round == 0) printf("free %u\n", CU(cuMemFreeAsync)(inside, stream));
        printf("capturing %u %u\n", CU(cuStreamIsCapturing)(stream, &capturing), capturing);
        printf("end %u %d\n", CU(cuStreamEndCapture)(stream, &graph), graph != NULL);
        printf("instantiate %u\n", CU(cuGraphInstantiateWithFlags)(&executable, graph, 0));
        printf("launch %u\n", CU(cuGraphLaunch)(executable, stream));
        printf("synchronize %u\n", CU(cuStreamSynchronize)(stream));
        if (round == 1) printf("free %u\n", CU(cuMemFreeAsync)(inside, stream));
        printf("destroy %u %u\n", CU(cuGraphExecDestroy)(executable), CU(cuGraphDestroy)(graph));
    }
    /* Each of these is the first unsafe call of a capture of its own. */
    for (int i = 0; i < 9; i++) {
        CUdeviceptr address = 0;
        void *host = NULL;
        size_t available, total;
        unsigned result = 99;
        graph = NULL;
        printf("begin %u\n", CU(cuStreamBeginCapture_v2)(stream, 0));
        if (i == 0) result = CU(cuMemAlloc_v2)(&address, 100);
        if (i == 1) result = CU(cuMemFree_v2)(before);
        if (i == 2) result = CU(cuMemHostAlloc)(&host, 100, 0);
        if (i == 3) result = CU(cuMemGetInfo_v2)(&available, &total);
        if (i == 4) result = CU(cuMemPoolGetAttribute)(pool, 5, &reserved);
        if (i == 5) result = CU(cuMemPoolTrimTo)(pool, 0);
        if (i == 6) result = CU(cuMemAllocAsync)(&address, 100, other);
        if (i == 7) result = CU(cuMemFreeAsync)(beside, other);
        if (i == 8) result = CU(cuStreamSynchronize)(stream);
        printf("unsafe %d %u\n", i, result);
        printf("end %u %d\n", CU(cuStreamEndCapture)(stream, &graph), graph != NULL);
        if (graph) CU(cuGraphDestroy)(graph);
    }
}

/* A graph that frees memory is instantiated while another stream captures. */
static void graph_during_capture(void) {
    CUDA_MEM_ALLOC_NODE_PARAMS params = {.pool = {.type = 1, .location = {1, 0}}, .bytes = 4096};
    CUhandle stream, graph, node, executable, captured = NULL;
    MUST(cuStreamCreate, &stream, 1);
    MUST(cuGraphCreate, &graph, 0);
    MUST(cuGraphAddMemAllocNode, &node, graph, NULL, 0, &params);
    MUST(cuGraphAddMemFreeNode, &node, graph, &node, 1, params.address);
    printf("begin %u\n", CU(cuStreamBeginCapture_v2)(stream, 2));
    printf("instantiate %u\n", CU(cuGraphInstantiateWithFlags)(&executable, graph, 0));
    printf("end %u %d\n", CU(cuStreamEndCapture)(stream, &captured), captured != NULL);
    printf("launch %u\n", CU(cuGraphLaunch)(executable, stream));
}

int main(int argc, char **argv) {
    driver("dlsym");
    start();
    if (!strcmp(argv[1], "failed-free")) failed_free();
    if (!strcmp(argv[1], "out-of-memory")) out_of_memory();
    if (!strcmp(argv[1], "sticky")) sticky();
    if (!strcmp(argv[1], "unknown")) unknown();
    if (!strcmp(argv[1], "reuse")) reuse();
    if (!strcmp(argv[1], "capture")) capture();
    if (!strcmp(argv[1], "graph-during-capture")) graph_during_capture();
    return 0;
}
