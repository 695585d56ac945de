/* Allocates in a context and ends that, or something that only seems to. Usage: contexts ROUTE
 *   destroy|reset|release   what a destroy, a reset, the last release ends
 *   detach                  a context that was attached to ends with the last detach
 *   green                   memory allocated in a green context, which alone retained the primary one
 *   green-retained          the same, where the program has retained the primary context too
 *   streams, streams-primary  streams go with their context, and their handles come back in the next one */
#include "driver.h"

/* Functions that no other program uses. */
static void *also(const char *name) {
    void *found = dlsym(dlopen("libcuda.so.1", RTLD_NOW), name);
    if (!found) fprintf(stderr, "no %s\n", name), exit(71);
    return found;
}
#define ALSO(name, ...) \
    do { \
        CUresult result_ = ((CUresult(*)())also(#name))(__VA_ARGS__); \
        if (result_) fprintf(stderr, "%s:%d: " #name " = %u\n", __FILE__, __LINE__, result_), exit(70); \
    } while (0)

/* What fill() left in the context: alive as long as that is. */
static CUdeviceptr kept;

static void fill(void) {
    void *pinned;
    CUdeviceptr managed;
    CUhandle array;
    CUDA_ARRAY_DESCRIPTOR shape = {16, 16, FORMAT_FLOAT, 1};
    CUdeviceptr freed = allocate(123456);
    CUdeviceptr address;
    for (int i = 0; i < 3; i++) MUST(cuMemAlloc_v2, &address, 10000);
    MUST(cuMemHostAlloc, &pinned, 8192, 0);
    MUST(cuMemAllocManaged, &managed, 4444, 1);
    MUST(cuArrayCreate_v2, &array, &shape);
    MUST(cuMemFree_v2, freed);
    kept = address;
    left("device", "cuMemAlloc_v2", 30000, 3);
    left("pinned", "cuMemHostAlloc", 8192, 1);
    left("managed", "cuMemAllocManaged", 4444, 1);
    left("array", "cuArrayCreate_v2", 1024, 1);
}

/* Physical memory belongs to the device, not to the context. */
static void physical(void) {
    CUmemAllocationProp props = {.type = 1, .location = {1, 0}};
    unsigned long long handle;
    MUST(cuMemCreate, &handle, 2 << 20, &props, 0);
    left("vmm", "cuMemCreate", 2 << 20, 1);
}

static CUdeviceptr outlives;

/* The memory is the primary context's. */
static void green(int retained) {
    static unsigned char resource[144];
    CUhandle description, green, face;
    ALSO(cuDeviceGetDevResource, 0, resource, 1);
    ALSO(cuDevResourceGenerateDesc, &description, resource, 1);
    ALSO(cuGreenCtxCreate, &green, description, 0, 1);
    ALSO(cuCtxFromGreenCtx, &face, green);
    MUST(cuCtxSetCurrent, face);
    fill();
    if (retained) outlives = allocate(50);
    ALSO(cuGreenCtxDestroy, green);
}

#define STREAMS 8
/* A block on each of new streams. Answers how many handles were those of streams that are gone. */
static int on_streams(size_t bytes) {
    static CUhandle seen[STREAMS];
    int again = 0;
    for (int i = 0; i < STREAMS; i++) {
        CUhandle stream;
        CUdeviceptr block;
        MUST(cuStreamCreate, &stream, 1);
        MUST(cuMemAllocAsync, &block, bytes, stream);
        for (int j = 0; j < STREAMS; j++) again += seen[j] == stream;
        seen[i] = stream;
    }
    return again;
}

static int streams(int primary) {
    CUhandle context, again;
    if (primary) MUST(cuDevicePrimaryCtxRetain, &context, 0);
    else MUST(cuCtxCreate_v2, &context, 0, 0);
    MUST(cuCtxSetCurrent, context);
    on_streams(1000);
    if (primary) {
        MUST(cuDevicePrimaryCtxRetain, &context, 0);
        MUST(cuDevicePrimaryCtxRelease_v2, 0); /* not the last: its streams stay */
        MUST(cuDevicePrimaryCtxReset_v2, 0);
        MUST(cuDevicePrimaryCtxRetain, &again, 0);
        MUST(cuCtxSetCurrent, again);
    } else {
        MUST(cuCtxDestroy_v2, context);
        MUST(cuCtxCreate_v2, &again, 0, 0);
    }
    return on_streams(2000) ? 0 : 78;
}

int main(int argc, char **argv) {
    CUhandle context;
    driver(argv[1]);
    MUST(cuInit, 0);
    if (!strcmp(argv[2], "destroy")) {
        MUST(cuCtxCreate_v2, &context, 0, 0);
        fill();
        physical();
        MUST(cuCtxDestroy_v2, context);
    } else if (!strcmp(argv[2], "detach")) {
        CUhandle again;
        CUdeviceptr freed;
        MUST(cuCtxCreate_v2, &context, 0, 0);
        ALSO(cuCtxAttach, &again, 0);
        fill();
        freed = allocate(50);
        ALSO(cuCtxDetach, again); /* not the last */
        MUST(cuMemFree_v2, freed);
        ALSO(cuCtxDetach, context);
    } else if (!strncmp(argv[2], "streams", 7)) {
        return streams(!strcmp(argv[2], "streams-primary"));
    } else if (!strcmp(argv[2], "green")) {
        green(0);
    } else if (!strcmp(argv[2], "green-retained")) {
        CUdeviceptr freed;
        MUST(cuDevicePrimaryCtxRetain, &context, 0);
        green(1);
        MUST(cuCtxSetCurrent, context);
        MUST(cuMemFree_v2, outlives);
        freed = allocate(50);
        MUST(cuMemFree_v2, freed);
        return 0;
    } else {
        MUST(cuDevicePrimaryCtxRetain, &context, 0);
        MUST(cuDevicePrimaryCtxRetain, &context, 0);
        MUST(cuCtxSetCurrent, context);
        fill();
        physical();
        MUST(cuDevicePrimaryCtxRelease_v2, 0); /* not the last */
        if (!strcmp(argv[2], "reset")) MUST(cuDevicePrimaryCtxReset_v2, 0);
        else MUST(cuDevicePrimaryCtxRelease_v2, 0);
    }
    /* The driver must agree that the context's memory is no more. */
    return CU(cuMemFree_v2)(kept) ? 0 : 77;
}
