/* Physical memory that is released while something uses it. Usage: uses WHAT */
#include "driver.h"

#define MIB (1ul << 20)

typedef struct { unsigned devices; size_t size; unsigned long long handle_types, flags; } CUmulticastObjectProp;
typedef struct {
    unsigned resource_type;
    CUhandle resource;
    unsigned subresource_type;
    union {
        struct { unsigned level, layer, from[3], extent[3]; } block;
        struct { unsigned layer; unsigned long long offset, size; } tail;
    } subresource;
    unsigned operation, handle_type;
    unsigned long long memory, offset;
    unsigned device_mask, flags, reserved[2];
} CUarrayMapInfo;
_Static_assert(sizeof(CUarrayMapInfo) == 96, "cuda.h's layout");

static CUresult (*multicast_create)(unsigned long long *, const CUmulticastObjectProp *);
static CUresult (*multicast_add)(unsigned long long, CUdevice);
static CUresult (*multicast_bind)(unsigned long long, size_t, unsigned long long, size_t, size_t, unsigned long long);
static CUresult (*multicast_bind_address)(unsigned long long, size_t, CUdeviceptr, size_t, unsigned long long);
static CUresult (*multicast_unbind)(unsigned long long, CUdevice, size_t, size_t);
static CUresult (*map_tiles)(CUarrayMapInfo *, unsigned, CUhandle);

#define DO(call) \
    do { \
        CUresult result_ = (call); \
        if (result_) fprintf(stderr, "%s:%d: %u\n", __FILE__, __LINE__, result_), exit(70); \
    } while (0)

static void find(void) {
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    multicast_create = dlsym(driver, "cuMulticastCreate");
    multicast_add = dlsym(driver, "cuMulticastAddDevice");
    multicast_bind = dlsym(driver, "cuMulticastBindMem");
    multicast_bind_address = dlsym(driver, "cuMulticastBindAddr");
    multicast_unbind = dlsym(driver, "cuMulticastUnbind");
    map_tiles = dlsym(driver, "cuMemMapArrayAsync");
}

/* Not a function: whoever allocates is the innermost function of the stack. */
#define physical(bytes) \
    ({ \
        CUmemAllocationProp props_ = {.type = 1, .location = {1, 0}}; \
        unsigned long long handle_; \
        MUST(cuMemCreate, &handle_, bytes, &props_, 0); \
        handle_; \
    })

static unsigned long long multicast(size_t bytes) {
    CUmulticastObjectProp props = {1, bytes, 0, 0};
    unsigned long long object;
    DO(multicast_create(&object, &props));
    DO(multicast_add(object, 0));
    return object;
}

/* One piece of memory is unbound, one stays bound. */
static void bound(void) {
    unsigned long long object = multicast(8 * MIB), one = physical(2 * MIB), two = physical(4 * MIB);
    DO(multicast_bind(object, 0, one, 0, 2 * MIB, 0));
    DO(multicast_bind(object, 2 * MIB, two, 0, 4 * MIB, 0));
    MUST(cuMemRelease, one);
    MUST(cuMemRelease, two);
    DO(multicast_unbind(object, 0, 0, 2 * MIB));
    left("vmm", "cuMemCreate", 4 * MIB, 1);
}

/* By its address, and the mapping goes; then the multicast object itself. */
static void bound_by_address(int all) {
    unsigned long long object = multicast(2 * MIB), memory = physical(2 * MIB);
    CUdeviceptr address;
    MUST(cuMemAddressReserve, &address, 2 * MIB, 0, 0, 0);
    MUST(cuMemMap, address, 2 * MIB, 0, memory, 0);
    DO(multicast_bind_address(object, 0, address, 2 * MIB, 0));
    MUST(cuMemRelease, memory);
    MUST(cuMemUnmap, address, 2 * MIB);
    MUST(cuMemAddressFree, address, 2 * MIB);
    if (all) MUST(cuMemRelease, object);
    else left("vmm", "cuMemCreate", 2 * MIB, 1);
}

static CUarrayMapInfo tile(CUhandle array, unsigned x, unsigned long long memory) {
    return (CUarrayMapInfo){
        .resource = array,
        .subresource.block = {.from = {x}, .extent = {256, 64, 1}},
        .operation = memory ? 1 : 2,
        .memory = memory,
        .device_mask = 1,
    };
}

/* What the tiles use is replaced, unmapped, left mapped. */
static void tiles(const char *then) {
    CUDA_ARRAY3D_DESCRIPTOR shape = {1024, 64, 0, FORMAT_FLOAT, 1, 0x40};
    CUhandle context, array;
    unsigned long long one, two, three;
    MUST(cuCtxCreate_v2, &context, 0, 0);
    MUST(cuArray3DCreate_v2, &array, &shape);
    one = physical(2 * MIB), two = physical(4 * MIB), three = physical(6 * MIB);
    CUarrayMapInfo maps[] = {tile(array, 0, one), tile(array, 256, two), tile(array, 512, two)};
    DO(map_tiles(maps, 3, NULL));
    maps[0] = tile(array, 0, three); /* in the place of `one` */
    maps[1] = tile(array, 256, 0);
    DO(map_tiles(maps, 2, NULL));
    MUST(cuMemRelease, one);
    MUST(cuMemRelease, two);
    MUST(cuMemRelease, three);
    if (!strcmp(then, "destroyed")) MUST(cuArrayDestroy, array);
    else if (!strcmp(then, "context")) MUST(cuCtxDestroy_v2, context);
    else {
        left("vmm", "cuMemCreate", 4 * MIB, 1);
        left("vmm", "cuMemCreate", 6 * MIB, 1);
    }
    /* 0 bytes until memory is mapped, and then that memory's */
    if (strcmp(then, "destroyed")) left("array", "cuArray3DCreate_v2", 0, 1);
}

int main(int argc, char **argv) {
    driver("dlsym");
    find();
    start();
    if (!strcmp(argv[1], "bound")) bound();
    if (!strcmp(argv[1], "address")) bound_by_address(0);
    if (!strcmp(argv[1], "object")) bound_by_address(1);
    if (!strncmp(argv[1], "tiles-", 6)) tiles(argv[1] + 6);
    return 0;
}
