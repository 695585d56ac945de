/* The driver API without NVIDIA's headers, so that driver cases compile with any C compiler, also
 * where there is no CUDA toolkit. With LINKED the functions come from -lcuda; otherwise each is a
 * pointer of the same name, filled from dlopen("libcuda.so.1"). With CU_CHECK, NVIDIA's cuda.h
 * supplies the types and every declaration here is checked against its own. */
#ifndef CU_H
#define CU_H
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include "truth.h"

#ifdef CU_CHECK
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>
#define LINKED
#else
typedef unsigned CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUstream_st *CUstream;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUarray_st *CUarray;
typedef struct CUmipmappedArray_st *CUmipmappedArray;
typedef struct CUmemPoolHandle_st *CUmemoryPool;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphNode_st *CUgraphNode;
typedef struct CUgraphExec_st *CUgraphExec;
typedef unsigned long long CUmemGenericAllocationHandle;
typedef unsigned CUmemPool_attribute, CUmemAllocationGranularity_flags, CUstreamCaptureMode, CUstreamCaptureStatus;
typedef struct { char reserved[64]; } CUipcMemHandle;
typedef struct { size_t Width, Height; unsigned Format, NumChannels; } CUDA_ARRAY_DESCRIPTOR;
typedef struct { size_t Width, Height, Depth; unsigned Format, NumChannels, Flags; } CUDA_ARRAY3D_DESCRIPTOR;
typedef struct { unsigned type; int id; } CUmemLocation;
typedef struct {
  unsigned type, requestedHandleTypes;
  CUmemLocation location;
  void *win32HandleMetaData;
  struct { unsigned char compressionType, gpuDirectRDMACapable; unsigned short usage; unsigned char reserved[4]; } allocFlags;
} CUmemAllocationProp;
typedef struct { CUmemLocation location; unsigned flags; } CUmemAccessDesc;
typedef struct {
  unsigned allocType, handleTypes;
  CUmemLocation location;
  void *win32SecurityAttributes;
  size_t maxSize;
  unsigned short usage;
  unsigned char reserved[54];
} CUmemPoolProps;
typedef struct {
  CUmemPoolProps poolProps;
  const CUmemAccessDesc *accessDescs;
  size_t accessDescCount, bytesize;
  CUdeviceptr dptr;
} CUDA_MEM_ALLOC_NODE_PARAMS;
#endif

_Static_assert(sizeof(CUmemPoolProps) == 88 && sizeof(CUmemAllocationProp) == 32 && sizeof(CUmemAccessDesc) == 12 &&
                   sizeof(CUDA_MEM_ALLOC_NODE_PARAMS) == 120 && sizeof(CUDA_ARRAY3D_DESCRIPTOR) == 40,
               "layouts of cuda.h 11.4 to 13");

#define CU_FUNCTIONS(F)                                                                                    \
  F(cuInit, (unsigned))                                                                                    \
  F(cuDeviceGet, (CUdevice *, int))                                                                        \
  F(cuDeviceGetCount, (int *))                                                                             \
  F(cuDevicePrimaryCtxRetain, (CUcontext *, CUdevice))                                                     \
  F(cuDevicePrimaryCtxRelease_v2, (CUdevice))                                                              \
  F(cuDevicePrimaryCtxReset_v2, (CUdevice))                                                                \
  F(cuCtxCreate_v2, (CUcontext *, unsigned, CUdevice))                                                     \
  F(cuCtxDestroy_v2, (CUcontext))                                                                          \
  F(cuCtxSetCurrent, (CUcontext))                                                                          \
  F(cuCtxSynchronize, (void))                                                                              \
  F(cuMemGetInfo_v2, (size_t *, size_t *))                                                                 \
  F(cuMemAlloc_v2, (CUdeviceptr *, size_t))                                                                \
  F(cuMemAllocPitch_v2, (CUdeviceptr *, size_t *, size_t, size_t, unsigned))                               \
  F(cuMemAllocManaged, (CUdeviceptr *, size_t, unsigned))                                                  \
  F(cuMemFree_v2, (CUdeviceptr))                                                                           \
  F(cuMemHostAlloc, (void **, size_t, unsigned))                                                           \
  F(cuMemAllocHost_v2, (void **, size_t))                                                                  \
  F(cuMemFreeHost, (void *))                                                                               \
  F(cuMemHostRegister_v2, (void *, size_t, unsigned))                                                      \
  F(cuMemHostUnregister, (void *))                                                                         \
  F(cuMemcpyHtoD_v2, (CUdeviceptr, const void *, size_t))                                                  \
  F(cuMemcpyDtoH_v2, (void *, CUdeviceptr, size_t))                                                        \
  F(cuMemcpyDtoDAsync_v2, (CUdeviceptr, CUdeviceptr, size_t, CUstream))                                    \
  F(cuMemsetD32Async, (CUdeviceptr, unsigned, size_t, CUstream))                                           \
  F(cuArrayCreate_v2, (CUarray *, const CUDA_ARRAY_DESCRIPTOR *))                                          \
  F(cuArray3DCreate_v2, (CUarray *, const CUDA_ARRAY3D_DESCRIPTOR *))                                      \
  F(cuArrayDestroy, (CUarray))                                                                             \
  F(cuMipmappedArrayCreate, (CUmipmappedArray *, const CUDA_ARRAY3D_DESCRIPTOR *, unsigned))               \
  F(cuMipmappedArrayGetLevel, (CUarray *, CUmipmappedArray, unsigned))                                     \
  F(cuMipmappedArrayDestroy, (CUmipmappedArray))                                                           \
  F(cuStreamCreate, (CUstream *, unsigned))                                                                \
  F(cuStreamDestroy_v2, (CUstream))                                                                        \
  F(cuStreamSynchronize, (CUstream))                                                                       \
  F(cuStreamBeginCapture_v2, (CUstream, CUstreamCaptureMode))                                              \
  F(cuStreamEndCapture, (CUstream, CUgraph *))                                                             \
  F(cuStreamIsCapturing, (CUstream, CUstreamCaptureStatus *))                                              \
  F(cuThreadExchangeStreamCaptureMode, (CUstreamCaptureMode *))                                            \
  F(cuMemAllocAsync, (CUdeviceptr *, size_t, CUstream))                                                    \
  F(cuMemAllocFromPoolAsync, (CUdeviceptr *, size_t, CUmemoryPool, CUstream))                              \
  F(cuMemFreeAsync, (CUdeviceptr, CUstream))                                                               \
  F(cuMemPoolCreate, (CUmemoryPool *, const CUmemPoolProps *))                                             \
  F(cuMemPoolDestroy, (CUmemoryPool))                                                                      \
  F(cuMemPoolTrimTo, (CUmemoryPool, size_t))                                                               \
  F(cuMemPoolSetAttribute, (CUmemoryPool, CUmemPool_attribute, void *))                                    \
  F(cuMemPoolGetAttribute, (CUmemoryPool, CUmemPool_attribute, void *))                                    \
  F(cuDeviceGetDefaultMemPool, (CUmemoryPool *, CUdevice))                                                 \
  F(cuDeviceGetMemPool, (CUmemoryPool *, CUdevice))                                                        \
  F(cuDeviceSetMemPool, (CUdevice, CUmemoryPool))                                                          \
  F(cuMemGetAllocationGranularity, (size_t *, const CUmemAllocationProp *, CUmemAllocationGranularity_flags)) \
  F(cuMemCreate, (CUmemGenericAllocationHandle *, size_t, const CUmemAllocationProp *, unsigned long long)) \
  F(cuMemRelease, (CUmemGenericAllocationHandle))                                                          \
  F(cuMemRetainAllocationHandle, (CUmemGenericAllocationHandle *, void *))                                 \
  F(cuMemAddressReserve, (CUdeviceptr *, size_t, size_t, CUdeviceptr, unsigned long long))                 \
  F(cuMemAddressFree, (CUdeviceptr, size_t))                                                               \
  F(cuMemMap, (CUdeviceptr, size_t, size_t, CUmemGenericAllocationHandle, unsigned long long))             \
  F(cuMemUnmap, (CUdeviceptr, size_t))                                                                     \
  F(cuMemSetAccess, (CUdeviceptr, size_t, const CUmemAccessDesc *, size_t))                                \
  F(cuIpcGetMemHandle, (CUipcMemHandle *, CUdeviceptr))                                                    \
  F(cuIpcOpenMemHandle_v2, (CUdeviceptr *, CUipcMemHandle, unsigned))                                      \
  F(cuIpcCloseMemHandle, (CUdeviceptr))                                                                    \
  F(cuGraphCreate, (CUgraph *, unsigned))                                                                  \
  F(cuGraphDestroy, (CUgraph))                                                                             \
  F(cuGraphAddMemAllocNode, (CUgraphNode *, CUgraph, const CUgraphNode *, size_t, CUDA_MEM_ALLOC_NODE_PARAMS *)) \
  F(cuGraphAddMemFreeNode, (CUgraphNode *, CUgraph, const CUgraphNode *, size_t, CUdeviceptr))             \
  F(cuGraphInstantiateWithFlags, (CUgraphExec *, CUgraph, unsigned long long))                             \
  F(cuGraphLaunch, (CUgraphExec, CUstream))                                                                \
  F(cuGraphExecDestroy, (CUgraphExec))                                                                     \
  F(cuDeviceGraphMemTrim, (CUdevice))                                                                      \
  F(cuModuleLoadData, (CUmodule *, const void *))                                                          \
  F(cuModuleUnload, (CUmodule))                                                                            \
  F(cuModuleGetFunction, (CUfunction *, CUmodule, const char *))                                           \
  F(cuModuleGetGlobal_v2, (CUdeviceptr *, size_t *, CUmodule, const char *))                               \
  F(cuLaunchKernel, (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, void **, void **))

#ifdef LINKED
#define CU_DECLARE(name, args) extern CUresult name args;
#else
#define CU_DECLARE(name, args) static CUresult(*name) args;
#endif
CU_FUNCTIONS(CU_DECLARE)
#undef CU_DECLARE

/* Prints what failed and where, and ends the program. */
#define CU(call)                                                                     \
  do {                                                                               \
    unsigned cu_result = (call);                                                     \
    if (cu_result) {                                                                 \
      fprintf(stderr, "%s:%d: %s returned %u\n", __FILE__, __LINE__, #call, cu_result); \
      exit(3);                                                                       \
    }                                                                                \
  } while (0)

enum { MIB = 1 << 20 };
enum { ARRAY_LAYERED = 1, ARRAY_SURFACE = 2, ARRAY_CUBEMAP = 4 };
enum { FORMAT_U8 = 0x01, FORMAT_U32 = 0x03, FORMAT_HALF = 0x10, FORMAT_FLOAT = 0x20 };
enum { CAPTURE_GLOBAL, CAPTURE_THREAD_LOCAL, CAPTURE_RELAXED };

static CUdevice cu_device;

static inline void cu_load(void) {
#ifndef LINKED
  void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    fprintf(stderr, "%s\n", dlerror());
    exit(3);
  }
#define CU_LOAD(name, args)                                \
  if (!(*(void **)&name = dlsym(library, #name))) {        \
    fprintf(stderr, "the driver has no %s\n", #name);      \
    exit(3);                                               \
  }
  CU_FUNCTIONS(CU_LOAD)
#undef CU_LOAD
#endif
}

/* Loads the driver and makes the primary context of the first device current. */
static inline CUcontext cu_open(void) {
  CUcontext context;
  cu_load();
  CU(cuInit(0));
  CU(cuDeviceGet(&cu_device, 0));
  CU(cuDevicePrimaryCtxRetain(&context, cu_device));
  CU(cuCtxSetCurrent(context));
  return context;
}

static inline void cu_reset(void) { CU(cuDevicePrimaryCtxReset_v2(cu_device)); }

/* Allocations that count themselves. */
static inline CUdeviceptr new_device(size_t bytes) {
  CUdeviceptr at;
  CU(cuMemAlloc_v2(&at, bytes));
  truth_alloc(DEVICE, bytes);
  return at;
}
static inline void free_device(CUdeviceptr at, size_t bytes) {
  CU(cuMemFree_v2(at));
  truth_free(DEVICE, bytes);
}
static inline CUdeviceptr new_async(size_t bytes, CUstream stream) {
  CUdeviceptr at;
  CU(cuMemAllocAsync(&at, bytes, stream));
  truth_alloc(ASYNC, bytes);
  return at;
}
static inline CUdeviceptr new_from_pool(size_t bytes, CUmemoryPool pool, CUstream stream) {
  CUdeviceptr at;
  CU(cuMemAllocFromPoolAsync(&at, bytes, pool, stream));
  truth_alloc(ASYNC, bytes);
  return at;
}
static inline void free_async(CUdeviceptr at, size_t bytes, CUstream stream) {
  CU(cuMemFreeAsync(at, stream));
  truth_free(ASYNC, bytes);
}
static inline void *new_pinned(size_t bytes, unsigned flags) {
  void *at;
  CU(cuMemHostAlloc(&at, bytes, flags));
  truth_alloc(PINNED, bytes);
  return at;
}
static inline void free_pinned(void *at, size_t bytes) {
  CU(cuMemFreeHost(at));
  truth_free(PINNED, bytes);
}
static inline CUdeviceptr new_managed(size_t bytes) {
  CUdeviceptr at;
  CU(cuMemAllocManaged(&at, bytes, 1 /* CU_MEM_ATTACH_GLOBAL */));
  truth_alloc(MANAGED, bytes);
  return at;
}
static inline CUmemAllocationProp cu_on_device(void) {
  CUmemAllocationProp prop;
  memset(&prop, 0, sizeof prop);
  prop.type = 1;          /* CU_MEM_ALLOCATION_TYPE_PINNED */
  prop.location.type = 1; /* CU_MEM_LOCATION_TYPE_DEVICE */
  prop.location.id = cu_device;
  return prop;
}
static inline CUmemoryPool new_pool(void) {
  CUmemoryPool pool;
  CUmemPoolProps props;
  memset(&props, 0, sizeof props);
  props.allocType = 1;
  props.location.type = 1;
  props.location.id = cu_device;
  CU(cuMemPoolCreate(&pool, &props));
  return pool;
}
static inline CUmemGenericAllocationHandle new_vmm(size_t bytes) {
  CUmemGenericAllocationHandle handle;
  CUmemAllocationProp prop = cu_on_device();
  CU(cuMemCreate(&handle, bytes, &prop, 0));
  truth_alloc(VMM, bytes);
  return handle;
}
#endif
