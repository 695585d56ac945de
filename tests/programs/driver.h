/* The driver API for test programs, without NVIDIA's headers, by every route that programs take to it.
 *
 * With -DLINKED the functions are called as a program does that is linked to libcuda. Otherwise driver(ROUTE) finds them:
 *   dlsym               on a handle of libcuda
 *   default             dlopen(RTLD_GLOBAL), then dlsym(RTLD_DEFAULT)
 *   proc, proc-ptsz     cuGetProcAddress_v2, with flags 0 or 2 (per-thread default stream)
 *   proc-old            cuGetProcAddress, the four-argument form
 *   proc-self-11030     cuGetProcAddress asked of cuGetProcAddress_v2, at the version of the four-argument form
 *   proc-self-12000     the same, at the version of the five-argument form: what libcudart does
 *
 * Calls are written CU(cuMemAlloc_v2)(&address, bytes), checked ones MUST(cuMemAlloc_v2, &address, bytes).
 * What a function leaves allocated it says with left(): that is what the trace must say. */
#ifndef DRIVER_H
#define DRIVER_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef void *CUhandle; /* any pointer-like driver object */
typedef struct { unsigned char bytes[64]; } CUipcMemHandle;
typedef struct { unsigned type; int id; } CUmemLocation;
typedef struct { CUmemLocation location; unsigned flags; } CUmemAccessDesc;
typedef struct { unsigned type, handle_types; CUmemLocation location; void *win32; unsigned char compression, rdma; unsigned short usage; unsigned char reserved[4]; } CUmemAllocationProp;
typedef struct { unsigned type, handle_types; CUmemLocation location; void *win32; size_t max_size; unsigned short usage; unsigned char reserved[54]; } CUmemPoolProps;
typedef struct { size_t width, height; unsigned format, channels; } CUDA_ARRAY_DESCRIPTOR;
typedef struct { size_t width, height, depth; unsigned format, channels, flags; } CUDA_ARRAY3D_DESCRIPTOR;
typedef struct { CUmemPoolProps pool; const CUmemAccessDesc *access; size_t access_count, bytes; CUdeviceptr address; } CUDA_MEM_ALLOC_NODE_PARAMS;
typedef struct { unsigned type; union { int fd; unsigned long long words[2]; } handle; unsigned long long size; unsigned flags, reserved[16]; } CUDA_EXTERNAL_MEMORY_HANDLE_DESC;
typedef struct { unsigned long long offset, size; unsigned flags, reserved[16]; } CUDA_EXTERNAL_MEMORY_BUFFER_DESC;
#define FORMAT_FLOAT 0x20

/* F(export, what cuGetProcAddress calls it, first version of this form, parameters) */
#define FUNCTIONS(F) \
    F(cuInit, "cuInit", 2000, (unsigned)) \
    F(cuDeviceGetCount, "cuDeviceGetCount", 2000, (int *)) \
    F(cuDriverGetVersion, "cuDriverGetVersion", 2020, (int *)) \
    F(cuCtxCreate_v2, "cuCtxCreate", 3020, (CUhandle *, unsigned, CUdevice)) \
    F(cuCtxDestroy_v2, "cuCtxDestroy", 4000, (CUhandle)) \
    F(cuCtxSetCurrent, "cuCtxSetCurrent", 4000, (CUhandle)) \
    F(cuCtxSynchronize, "cuCtxSynchronize", 2000, (void)) \
    F(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", 7000, (CUhandle *, CUdevice)) \
    F(cuDevicePrimaryCtxRelease_v2, "cuDevicePrimaryCtxRelease", 11000, (CUdevice)) \
    F(cuDevicePrimaryCtxReset_v2, "cuDevicePrimaryCtxReset", 11000, (CUdevice)) \
    F(cuMemGetInfo_v2, "cuMemGetInfo", 3020, (size_t *, size_t *)) \
    F(cuMemAlloc_v2, "cuMemAlloc", 3020, (CUdeviceptr *, size_t)) \
    F(cuMemAllocPitch_v2, "cuMemAllocPitch", 3020, (CUdeviceptr *, size_t *, size_t, size_t, unsigned)) \
    F(cuMemAllocManaged, "cuMemAllocManaged", 6000, (CUdeviceptr *, size_t, unsigned)) \
    F(cuMemFree_v2, "cuMemFree", 3020, (CUdeviceptr)) \
    F(cuMemAllocHost_v2, "cuMemAllocHost", 3020, (void **, size_t)) \
    F(cuMemHostAlloc, "cuMemHostAlloc", 2020, (void **, size_t, unsigned)) \
    F(cuMemFreeHost, "cuMemFreeHost", 2000, (void *)) \
    F(cuMemHostRegister_v2, "cuMemHostRegister", 6050, (void *, size_t, unsigned)) \
    F(cuMemHostUnregister, "cuMemHostUnregister", 4000, (void *)) \
    F(cuMemAllocAsync, "cuMemAllocAsync", 11020, (CUdeviceptr *, size_t, CUhandle)) \
    F(cuMemFreeAsync, "cuMemFreeAsync", 11020, (CUdeviceptr, CUhandle)) \
    F(cuMemAllocFromPoolAsync, "cuMemAllocFromPoolAsync", 11020, (CUdeviceptr *, size_t, CUhandle, CUhandle)) \
    F(cuMemPoolCreate, "cuMemPoolCreate", 11020, (CUhandle *, const CUmemPoolProps *)) \
    F(cuMemPoolDestroy, "cuMemPoolDestroy", 11020, (CUhandle)) \
    F(cuMemPoolTrimTo, "cuMemPoolTrimTo", 11020, (CUhandle, size_t)) \
    F(cuMemPoolGetAttribute, "cuMemPoolGetAttribute", 11020, (CUhandle, unsigned, void *)) \
    F(cuMemPoolSetAttribute, "cuMemPoolSetAttribute", 11020, (CUhandle, unsigned, void *)) \
    F(cuDeviceGetDefaultMemPool, "cuDeviceGetDefaultMemPool", 11020, (CUhandle *, CUdevice)) \
    F(cuArrayCreate_v2, "cuArrayCreate", 3020, (CUhandle *, const CUDA_ARRAY_DESCRIPTOR *)) \
    F(cuArray3DCreate_v2, "cuArray3DCreate", 3020, (CUhandle *, const CUDA_ARRAY3D_DESCRIPTOR *)) \
    F(cuArrayDestroy, "cuArrayDestroy", 2000, (CUhandle)) \
    F(cuMipmappedArrayCreate, "cuMipmappedArrayCreate", 5000, (CUhandle *, const CUDA_ARRAY3D_DESCRIPTOR *, unsigned)) \
    F(cuMipmappedArrayDestroy, "cuMipmappedArrayDestroy", 5000, (CUhandle)) \
    F(cuMemCreate, "cuMemCreate", 10020, (unsigned long long *, size_t, const CUmemAllocationProp *, unsigned long long)) \
    F(cuMemRelease, "cuMemRelease", 10020, (unsigned long long)) \
    F(cuMemRetainAllocationHandle, "cuMemRetainAllocationHandle", 11000, (unsigned long long *, void *)) \
    F(cuMemAddressReserve, "cuMemAddressReserve", 10020, (CUdeviceptr *, size_t, size_t, CUdeviceptr, unsigned long long)) \
    F(cuMemAddressFree, "cuMemAddressFree", 10020, (CUdeviceptr, size_t)) \
    F(cuMemMap, "cuMemMap", 10020, (CUdeviceptr, size_t, size_t, unsigned long long, unsigned long long)) \
    F(cuMemUnmap, "cuMemUnmap", 10020, (CUdeviceptr, size_t)) \
    F(cuMemSetAccess, "cuMemSetAccess", 10020, (CUdeviceptr, size_t, const CUmemAccessDesc *, size_t)) \
    F(cuMemExportToShareableHandle, "cuMemExportToShareableHandle", 10020, (void *, unsigned long long, unsigned, unsigned long long)) \
    F(cuMemImportFromShareableHandle, "cuMemImportFromShareableHandle", 10020, (unsigned long long *, void *, unsigned)) \
    F(cuIpcGetMemHandle, "cuIpcGetMemHandle", 4010, (CUipcMemHandle *, CUdeviceptr)) \
    F(cuIpcOpenMemHandle_v2, "cuIpcOpenMemHandle", 11000, (CUdeviceptr *, CUipcMemHandle, unsigned)) \
    F(cuIpcCloseMemHandle, "cuIpcCloseMemHandle", 4010, (CUdeviceptr)) \
    F(cuImportExternalMemory, "cuImportExternalMemory", 10000, (CUhandle *, const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *)) \
    F(cuExternalMemoryGetMappedBuffer, "cuExternalMemoryGetMappedBuffer", 10000, (CUdeviceptr *, CUhandle, const CUDA_EXTERNAL_MEMORY_BUFFER_DESC *)) \
    F(cuDestroyExternalMemory, "cuDestroyExternalMemory", 10000, (CUhandle)) \
    F(cuStreamCreate, "cuStreamCreate", 2000, (CUhandle *, unsigned)) \
    F(cuStreamDestroy_v2, "cuStreamDestroy", 4000, (CUhandle)) \
    F(cuStreamSynchronize, "cuStreamSynchronize", 2000, (CUhandle)) \
    F(cuStreamIsCapturing, "cuStreamIsCapturing", 10000, (CUhandle, unsigned *)) \
    F(cuStreamBeginCapture_v2, "cuStreamBeginCapture", 10010, (CUhandle, unsigned)) \
    F(cuStreamEndCapture, "cuStreamEndCapture", 10000, (CUhandle, CUhandle *)) \
    F(cuMemsetD8Async, "cuMemsetD8Async", 3020, (CUdeviceptr, unsigned char, size_t, CUhandle)) \
    F(cuGraphCreate, "cuGraphCreate", 10000, (CUhandle *, unsigned)) \
    F(cuGraphDestroy, "cuGraphDestroy", 10000, (CUhandle)) \
    F(cuGraphAddMemAllocNode, "cuGraphAddMemAllocNode", 11040, (CUhandle *, CUhandle, const CUhandle *, size_t, CUDA_MEM_ALLOC_NODE_PARAMS *)) \
    F(cuGraphAddMemFreeNode, "cuGraphAddMemFreeNode", 11040, (CUhandle *, CUhandle, const CUhandle *, size_t, CUdeviceptr)) \
    F(cuGraphInstantiateWithFlags, "cuGraphInstantiate", 11040, (CUhandle *, CUhandle, unsigned long long)) \
    F(cuGraphLaunch, "cuGraphLaunch", 10000, (CUhandle, CUhandle)) \
    F(cuGraphExecDestroy, "cuGraphExecDestroy", 10000, (CUhandle)) \
    F(cuDeviceGraphMemTrim, "cuDeviceGraphMemTrim", 11040, (CUdevice))

static int per_thread_streams;

#ifdef LINKED
#define F(name, base, version, parameters) extern CUresult name parameters;
FUNCTIONS(F)
#undef F
#define CU(name) name
static void driver(const char *route) { (void)route; }
#else
#define F(name, base, version, parameters) static CUresult (*p_##name) parameters;
FUNCTIONS(F)
#undef F
#define CU(name) p_##name

typedef CUresult (*get4)(const char *, void **, int, unsigned long long);
typedef CUresult (*get5)(const char *, void **, int, unsigned long long, unsigned *);
static get4 resolver4;
static get5 resolver5;

static void *resolved(const char *name, int version) {
    void *found = NULL;
    unsigned status = 99;
    unsigned long long flags = per_thread_streams ? 2 : 0;
    if (per_thread_streams && version < 7000) version = 7000; /* before, there were none */
    CUresult result = resolver5 ? resolver5(name, &found, version, flags, &status) : resolver4(name, &found, version, flags);
    if (result) fprintf(stderr, "cuGetProcAddress(%s, %d) = %u\n", name, version, result), exit(72);
    return found;
}

static void driver(const char *route) {
    int global = !strcmp(route, "default");
    void *library = dlopen("libcuda.so.1", RTLD_NOW | (global ? RTLD_GLOBAL : RTLD_LOCAL));
    if (!library) fprintf(stderr, "%s\n", dlerror()), exit(71);
    void *handle = global ? RTLD_DEFAULT : library;
    int proc = !strncmp(route, "proc", 4);
    if (proc) {
        per_thread_streams = !strcmp(route, "proc-ptsz");
        if (!strcmp(route, "proc-old"))
            resolver4 = (get4)dlsym(handle, "cuGetProcAddress");
        else
            resolver5 = (get5)dlsym(handle, "cuGetProcAddress_v2");
        if (!strcmp(route, "proc-self-11030")) {
            resolver4 = (get4)resolved("cuGetProcAddress", 11030);
            resolver5 = NULL;
        } else if (!strcmp(route, "proc-self-12000")) {
            resolver5 = (get5)resolved("cuGetProcAddress", 12000);
        }
    }
#define F(name, base, version, parameters) \
    p_##name = (CUresult (*) parameters)(proc ? resolved(base, version) : dlsym(handle, #name)); \
    if (!p_##name) fprintf(stderr, "no %s by %s: %s\n", #name, route, dlerror()), exit(71);
    FUNCTIONS(F)
#undef F
}
#endif

#define MUST(name, ...) \
    do { \
        CUresult result_ = CU(name)(__VA_ARGS__); \
        if (result_) fprintf(stderr, "%s:%d: " #name " = %u\n", __FILE__, __LINE__, result_), exit(70); \
    } while (0)

/* cuInit and the primary context of device 0. */
static void start(void) {
    CUhandle context;
    MUST(cuInit, 0);
    MUST(cuDevicePrimaryCtxRetain, &context, 0);
    MUST(cuCtxSetCurrent, context);
}

#define left(kind, api, bytes, count) printf("left %s %s %llu %u %s\n", kind, api, (unsigned long long)(bytes), (unsigned)(count), __func__), fflush(stdout)

/* The name that a function with a per-thread variant is called by on this route. */
#define PER_THREAD(name) (per_thread_streams ? name "_ptsz" : name)

static CUdeviceptr allocate(size_t bytes) {
    CUdeviceptr address = 0;
    MUST(cuMemAlloc_v2, &address, bytes);
    return address;
}
#endif
