/* Leaks something of every kind, and frees more of it. Usage: kinds ROUTE [FUNCTION...] */
#include "driver.h"
#include <sys/mman.h>

#define MIB (1ul << 20)

static void linear(void) {
    CUdeviceptr address[8];
    for (int i = 0; i < 8; i++) MUST(cuMemAlloc_v2, &address[i], 1000000);
    for (int i = 0; i < 8; i += 2) MUST(cuMemFree_v2, address[i]);
    MUST(cuMemFree_v2, 0); /* legal */
    left("device", "cuMemAlloc_v2", 4 * 1000000, 4);
}

static void pitch(void) {
    CUdeviceptr address;
    size_t pitch;
    MUST(cuMemAllocPitch_v2, &address, &pitch, 1000, 10, 4);
    if (pitch <= 1000) exit(73); /* else the test says nothing */
    left("device", "cuMemAllocPitch_v2", pitch * 10, 1);
}

static void managed(void) {
    CUdeviceptr address[2];
    for (int i = 0; i < 2; i++) MUST(cuMemAllocManaged, &address[i], 300000, 1);
    MUST(cuMemFree_v2, address[1]);
    left("managed", "cuMemAllocManaged", 300000, 1);
}

static void async(void) {
    CUhandle stream;
    CUdeviceptr address[6];
    MUST(cuStreamCreate, &stream, 0);
    for (int i = 0; i < 6; i++) MUST(cuMemAllocAsync, &address[i], 5000, i % 2 ? stream : NULL);
    MUST(cuMemFreeAsync, address[0], stream);
    MUST(cuMemFreeAsync, address[1], NULL);
    MUST(cuMemFree_v2, address[2]); /* the plain free takes these too */
    left("async", PER_THREAD("cuMemAllocAsync"), 3 * 5000, 3);
}

static void from_pool(void) {
    CUmemPoolProps props = {.type = 1, .location = {1, 0}};
    CUhandle pool;
    CUdeviceptr address[3];
    MUST(cuMemPoolCreate, &pool, &props);
    for (int i = 0; i < 3; i++) MUST(cuMemAllocFromPoolAsync, &address[i], 7000, pool, NULL);
    MUST(cuMemFreeAsync, address[0], NULL);
    left("async", PER_THREAD("cuMemAllocFromPoolAsync"), 2 * 7000, 2);
}

static void destroyed_pool(void) {
    CUmemPoolProps props = {.type = 1, .location = {1, 0}};
    CUhandle pool;
    CUdeviceptr address[2];
    MUST(cuMemPoolCreate, &pool, &props);
    for (int i = 0; i < 2; i++) MUST(cuMemAllocFromPoolAsync, &address[i], 9000, pool, NULL);
    MUST(cuMemPoolDestroy, pool); /* deferred: blocks are live */
    MUST(cuMemFreeAsync, address[0], NULL);
    left("async", PER_THREAD("cuMemAllocFromPoolAsync"), 9000, 1);
}

static void pinned(void) {
    void *address[2];
    for (int i = 0; i < 2; i++) MUST(cuMemHostAlloc, &address[i], 4096, 1);
    MUST(cuMemFreeHost, address[0]);
    left("pinned", "cuMemHostAlloc", 4096, 1);
}

static void pinned_plain(void) {
    void *address[2];
    for (int i = 0; i < 2; i++) MUST(cuMemAllocHost_v2, &address[i], 12288);
    MUST(cuMemFreeHost, address[1]);
    left("pinned", "cuMemAllocHost_v2", 12288, 1);
}

static void registered(void) {
    char *memory = aligned_alloc(4096, 4 * 4096);
    for (int i = 0; i < 4; i++) MUST(cuMemHostRegister_v2, memory + 4096 * i, 4096, 0);
    MUST(cuMemHostUnregister, memory);
    left("registered", "cuMemHostRegister_v2", 3 * 4096, 3);
}

static void array(void) {
    CUDA_ARRAY_DESCRIPTOR shape = {64, 64, FORMAT_FLOAT, 1};
    CUhandle array[2];
    for (int i = 0; i < 2; i++) MUST(cuArrayCreate_v2, &array[i], &shape);
    MUST(cuArrayDestroy, array[0]);
    left("array", "cuArrayCreate_v2", 64 * 64 * 4, 1);
}

static void array_3d(void) {
    CUDA_ARRAY3D_DESCRIPTOR shape = {32, 16, 8, FORMAT_FLOAT, 4, 0};
    CUhandle array;
    MUST(cuArray3DCreate_v2, &array, &shape);
    left("array", "cuArray3DCreate_v2", 32 * 16 * 8 * 16, 1);
}

static void mipmapped(void) {
    CUDA_ARRAY3D_DESCRIPTOR shape = {64, 64, 0, FORMAT_FLOAT, 1, 0};
    CUhandle array[2];
    for (int i = 0; i < 2; i++) MUST(cuMipmappedArrayCreate, &array[i], &shape, 4);
    MUST(cuMipmappedArrayDestroy, array[0]);
    left("array", "cuMipmappedArrayCreate", 4 * (64 * 64 + 32 * 32 + 16 * 16 + 8 * 8), 1);
}

static CUmemAllocationProp physical(void) {
    return (CUmemAllocationProp){.type = 1, .handle_types = 1, .location = {1, 0}};
}

static CUdeviceptr reserve(size_t bytes) {
    CUdeviceptr address;
    MUST(cuMemAddressReserve, &address, bytes, 0, 0, 0);
    return address;
}

static void vmm_released_while_mapped(void) {
    CUmemAllocationProp props = physical();
    unsigned long long handle;
    CUdeviceptr address = reserve(4 * MIB);
    MUST(cuMemCreate, &handle, 4 * MIB, &props, 0);
    MUST(cuMemMap, address, 4 * MIB, 0, handle, 0);
    MUST(cuMemRelease, handle); /* normal: the mapping keeps it */
    left("vmm", "cuMemCreate", 4 * MIB, 1);
}

static void vmm_unmapped_before_release(void) {
    CUmemAllocationProp props = physical();
    unsigned long long handle;
    CUdeviceptr address = reserve(6 * MIB);
    MUST(cuMemCreate, &handle, 6 * MIB, &props, 0);
    MUST(cuMemMap, address, 6 * MIB, 0, handle, 0);
    MUST(cuMemUnmap, address, 6 * MIB);
    MUST(cuMemAddressFree, address, 6 * MIB);
    left("vmm", "cuMemCreate", 6 * MIB, 1); /* never released */
}

static void vmm_retained(void) {
    CUmemAllocationProp props = physical();
    unsigned long long handle, again;
    CUdeviceptr address = reserve(8 * MIB);
    MUST(cuMemCreate, &handle, 8 * MIB, &props, 0);
    MUST(cuMemMap, address, 8 * MIB, 0, handle, 0);
    MUST(cuMemRetainAllocationHandle, &again, (void *)(uintptr_t)address);
    MUST(cuMemRelease, handle);
    MUST(cuMemUnmap, address, 8 * MIB);
    left("vmm", "cuMemCreate", 8 * MIB, 1); /* the second reference */
}

static void vmm_mapped_twice(void) {
    CUmemAllocationProp props = physical();
    unsigned long long handle;
    CUdeviceptr one = reserve(10 * MIB), two = reserve(10 * MIB);
    MUST(cuMemCreate, &handle, 10 * MIB, &props, 0);
    MUST(cuMemMap, one, 10 * MIB, 0, handle, 0);
    MUST(cuMemMap, two, 10 * MIB, 0, handle, 0);
    MUST(cuMemRelease, handle);
    MUST(cuMemUnmap, one, 10 * MIB);
    left("vmm", "cuMemCreate", 10 * MIB, 1); /* the second mapping */
}

static void vmm_all_freed(void) {
    CUmemAllocationProp props = physical();
    unsigned long long handle[3];
    for (int round = 0; round < 20; round++) { /* handles are reused */
        CUdeviceptr address = reserve(6 * MIB);
        for (int i = 0; i < 3; i++) {
            MUST(cuMemCreate, &handle[i], 2 * MIB, &props, 0);
            MUST(cuMemMap, address + i * 2 * MIB, 2 * MIB, 0, handle[i], 0);
            if (round % 2) MUST(cuMemRelease, handle[i]);
        }
        MUST(cuMemUnmap, address, 6 * MIB); /* all three at once */
        for (int i = 0; i < 3; i++)
            if (round % 2 == 0) MUST(cuMemRelease, handle[i]);
        MUST(cuMemAddressFree, address, 6 * MIB);
    }
}

static void graph(void) {
    CUDA_MEM_ALLOC_NODE_PARAMS params = {.pool = {.type = 1, .location = {1, 0}}, .bytes = 65536}, gone = params;
    CUhandle graph, node, freed, executable;
    MUST(cuGraphCreate, &graph, 0);
    MUST(cuGraphAddMemAllocNode, &node, graph, NULL, 0, &params);
    MUST(cuGraphAddMemAllocNode, &freed, graph, &node, 1, &gone);
    MUST(cuGraphAddMemFreeNode, &node, graph, &freed, 1, gone.address);
    MUST(cuGraphInstantiateWithFlags, &executable, graph, 0);
    MUST(cuGraphLaunch, executable, NULL);
    left("graph", PER_THREAD("cuGraphLaunch"), 65536, 1);
}

static void graph_relaunched(void) {
    CUDA_MEM_ALLOC_NODE_PARAMS params = {.pool = {.type = 1, .location = {1, 0}}, .bytes = 32768};
    CUhandle graph, node, executable;
    MUST(cuGraphCreate, &graph, 0);
    MUST(cuGraphAddMemAllocNode, &node, graph, NULL, 0, &params);
    MUST(cuGraphInstantiateWithFlags, &executable, graph, 0);
    for (int i = 0; i < 3; i++) {
        MUST(cuGraphLaunch, executable, NULL);
        MUST(cuMemFreeAsync, params.address, NULL);
    }
    MUST(cuStreamSynchronize, NULL);
}

/* Somebody else's memory: shown (total.imports), in no sum. */
static void external(void) {
    int fd = memfd_create("external", 0);
    if (ftruncate(fd, 2 * MIB)) exit(74);
    CUDA_EXTERNAL_MEMORY_HANDLE_DESC desc = {.type = 1, .handle.fd = fd, .size = 2 * MIB};
    CUDA_EXTERNAL_MEMORY_BUFFER_DESC buffer = {.size = MIB};
    CUhandle memory;
    CUdeviceptr address[2];
    MUST(cuImportExternalMemory, &memory, &desc);
    for (int i = 0; i < 2; i++) MUST(cuExternalMemoryGetMappedBuffer, &address[i], memory, &buffer);
    MUST(cuMemFree_v2, address[0]);
}

static const struct { const char *name; void (*function)(void); } all[] = {
#define ONE(name) {#name, name}
    ONE(linear), ONE(pitch), ONE(managed), ONE(async), ONE(from_pool), ONE(destroyed_pool), ONE(pinned), ONE(pinned_plain),
    ONE(registered), ONE(array), ONE(array_3d), ONE(mipmapped), ONE(vmm_released_while_mapped),
    ONE(vmm_unmapped_before_release), ONE(vmm_retained), ONE(vmm_mapped_twice), ONE(vmm_all_freed), ONE(graph),
    ONE(graph_relaunched), ONE(external),
};

int main(int argc, char **argv) {
    driver(argc > 1 ? argv[1] : "dlsym");
    start();
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        int wanted = argc <= 2;
        for (int a = 2; a < argc; a++) wanted |= !strcmp(argv[a], all[i].name);
        if (wanted) all[i].function();
    }
    return 0;
}
