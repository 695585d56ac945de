/* What a CUDA driver does, observed: one line per observation, the same on every driver.
 *
 * Run on a real GPU and on the simulated driver (tests/sim), the two outputs must be equal: this is
 * what keeps the simulator honest. Prints error codes, yes/no facts and relations; never addresses,
 * sizes or names of a machine.
 *
 *   cc -std=gnu11 conformance.c -ldl -lpthread -o conformance
 *   ./conformance              every section, each in a process of its own
 *   ./conformance --list       names of the sections
 *   ./conformance SECTION      one section, in this process
 *
 * Needs no CUDA toolkit: the driver is loaded with dlopen, declarations are the program's own. It
 * never creates multicast objects, uses less than 1 GiB and no large managed memory, and each
 * process ends by an alarm after 120 seconds.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef uint64_t ptr;  /* CUdeviceptr, and allocation handles */
typedef void *handle;  /* contexts, streams, events, pools, graphs ... */
typedef struct { int type, id; } Location;
typedef struct { Location location; int flags; } Access;
typedef struct {
  int type, handle_types;
  Location location;
  void *win32;
  unsigned char compression, rdma;
  unsigned short usage;
  unsigned char reserved[4];
} AllocProp;
typedef struct {
  int type, handle_types;
  Location location;
  void *win32;
  size_t max_size;
  unsigned short usage;
  unsigned char reserved[54];
} PoolProps;
typedef struct { char bytes[64]; } Opaque;
typedef struct { size_t width, height; int format; unsigned channels; } ArrayDesc;
typedef struct { size_t width, height, depth; int format; unsigned channels, flags; } Array3D;
typedef struct {
  PoolProps pool;
  const Access *access;
  size_t access_count, bytes;
  ptr dptr;
} AllocNode;
typedef struct { ptr dst; size_t pitch; unsigned value, element; size_t width, height; } MemsetNode;
typedef struct {
  int type, reserved[3];
  union { AllocNode alloc; struct { handle graph; int ownership; } child; long long words[29]; } u;
  long long reserved2;
} NodeParams;
typedef struct { int result; handle error_node, error_from; } UpdateInfo;
typedef struct {
  int type;
  union { int fd; void *words[2]; } handle;
  unsigned long long size;
  unsigned flags, reserved[16];
} ExternalDesc;
typedef struct { unsigned long long offset, size; unsigned flags, reserved[16]; } BufferDesc;

/* Every function used, with its exported name. */
#define FUNCTIONS(X) \
  X(cuInit, (unsigned)) X(cuDriverGetVersion, (int *)) X(cuDeviceGet, (int *, int)) \
  X(cuDeviceGetCount, (int *)) X(cuDeviceGetName, (char *, int, int)) \
  X(cuDeviceGetUuid_v2, (char *, int)) X(cuDeviceTotalMem_v2, (size_t *, int)) \
  X(cuDeviceGetAttribute, (int *, int, int)) X(cuDeviceGetPCIBusId, (char *, int, int)) \
  X(cuGetErrorName, (int, const char **)) X(cuGetErrorString, (int, const char **)) \
  X(cuGetExportTable, (const void **, const char *)) \
  X(cuGetProcAddress, (const char *, void **, int, uint64_t)) \
  X(cuGetProcAddress_v2, (const char *, void **, int, uint64_t, int *)) \
  X(cuCtxCreate_v2, (handle *, unsigned, int)) X(cuCtxCreate_v4, (handle *, void *, unsigned, int)) \
  X(cuCtxDestroy_v2, (handle)) X(cuCtxPushCurrent_v2, (handle)) X(cuCtxPopCurrent_v2, (handle *)) \
  X(cuCtxSetCurrent, (handle)) X(cuCtxGetCurrent, (handle *)) X(cuCtxGetDevice, (int *)) \
  X(cuCtxGetFlags, (unsigned *)) X(cuCtxGetApiVersion, (handle, unsigned *)) \
  X(cuCtxGetId, (handle, unsigned long long *)) X(cuCtxSynchronize, (void)) \
  X(cuCtxGetLimit, (size_t *, int)) X(cuCtxSetLimit, (int, size_t)) \
  X(cuDevicePrimaryCtxRetain, (handle *, int)) X(cuDevicePrimaryCtxRelease_v2, (int)) \
  X(cuDevicePrimaryCtxReset_v2, (int)) X(cuDevicePrimaryCtxGetState, (int, unsigned *, int *)) \
  X(cuDevicePrimaryCtxSetFlags_v2, (int, unsigned)) \
  X(cuMemGetInfo_v2, (size_t *, size_t *)) X(cuMemAlloc_v2, (ptr *, size_t)) \
  X(cuMemAllocPitch_v2, (ptr *, size_t *, size_t, size_t, unsigned)) X(cuMemFree_v2, (ptr)) \
  X(cuMemAllocManaged, (ptr *, size_t, unsigned)) \
  X(cuMemGetAddressRange_v2, (ptr *, size_t *, ptr)) X(cuMemAllocHost_v2, (void **, size_t)) \
  X(cuMemHostAlloc, (void **, size_t, unsigned)) X(cuMemFreeHost, (void *)) \
  X(cuMemHostRegister_v2, (void *, size_t, unsigned)) X(cuMemHostUnregister, (void *)) \
  X(cuMemHostGetDevicePointer_v2, (ptr *, void *, unsigned)) \
  X(cuMemHostGetFlags, (unsigned *, void *)) \
  X(cuPointerGetAttribute, (void *, int, ptr)) \
  X(cuPointerGetAttributes, (unsigned, int *, void **, ptr)) \
  X(cuMemcpyHtoD_v2, (ptr, const void *, size_t)) X(cuMemcpyDtoH_v2, (void *, ptr, size_t)) \
  X(cuMemcpyDtoD_v2, (ptr, ptr, size_t)) X(cuMemcpy, (ptr, ptr, size_t)) \
  X(cuMemcpyHtoDAsync_v2, (ptr, const void *, size_t, handle)) \
  X(cuMemcpyDtoHAsync_v2, (void *, ptr, size_t, handle)) \
  X(cuMemcpyHtoA_v2, (handle, size_t, const void *, size_t)) \
  X(cuMemcpyAtoH_v2, (void *, handle, size_t, size_t)) \
  X(cuMemsetD8_v2, (ptr, unsigned char, size_t)) X(cuMemsetD32_v2, (ptr, unsigned, size_t)) \
  X(cuMemsetD8Async, (ptr, unsigned char, size_t, handle)) \
  X(cuMemAllocAsync, (ptr *, size_t, handle)) X(cuMemFreeAsync, (ptr, handle)) \
  X(cuMemAllocAsync_ptsz, (ptr *, size_t, handle)) \
  X(cuMemAllocFromPoolAsync, (ptr *, size_t, handle, handle)) \
  X(cuMemPoolCreate, (handle *, const PoolProps *)) X(cuMemPoolDestroy, (handle)) \
  X(cuMemPoolTrimTo, (handle, size_t)) X(cuMemPoolGetAttribute, (handle, int, void *)) \
  X(cuMemPoolSetAttribute, (handle, int, void *)) \
  X(cuMemPoolGetAccess, (int *, handle, Location *)) \
  X(cuMemPoolExportToShareableHandle, (void *, handle, int, unsigned long long)) \
  X(cuMemPoolImportFromShareableHandle, (handle *, void *, int, unsigned long long)) \
  X(cuMemPoolExportPointer, (Opaque *, ptr)) X(cuMemPoolImportPointer, (ptr *, handle, Opaque *)) \
  X(cuDeviceGetDefaultMemPool, (handle *, int)) X(cuDeviceGetMemPool, (handle *, int)) \
  X(cuDeviceSetMemPool, (int, handle)) X(cuMemGetMemPool, (handle *, Location *, int)) \
  X(cuArrayCreate_v2, (handle *, const ArrayDesc *)) X(cuArray3DCreate_v2, (handle *, const Array3D *)) \
  X(cuArrayDestroy, (handle)) X(cuArrayGetDescriptor_v2, (ArrayDesc *, handle)) \
  X(cuMipmappedArrayCreate, (handle *, const Array3D *, unsigned)) \
  X(cuMipmappedArrayGetLevel, (handle *, handle, unsigned)) X(cuMipmappedArrayDestroy, (handle)) \
  X(cuMemAddressReserve, (ptr *, size_t, size_t, ptr, unsigned long long)) \
  X(cuMemAddressFree, (ptr, size_t)) \
  X(cuMemCreate, (ptr *, size_t, const AllocProp *, unsigned long long)) X(cuMemRelease, (ptr)) \
  X(cuMemMap, (ptr, size_t, size_t, ptr, unsigned long long)) X(cuMemUnmap, (ptr, size_t)) \
  X(cuMemSetAccess, (ptr, size_t, const Access *, size_t)) \
  X(cuMemGetAccess, (unsigned long long *, const Location *, ptr)) \
  X(cuMemGetAllocationGranularity, (size_t *, const AllocProp *, int)) \
  X(cuMemGetAllocationPropertiesFromHandle, (AllocProp *, ptr)) \
  X(cuMemRetainAllocationHandle, (ptr *, void *)) \
  X(cuMemExportToShareableHandle, (void *, ptr, int, unsigned long long)) \
  X(cuMemImportFromShareableHandle, (ptr *, void *, int)) \
  X(cuIpcGetMemHandle, (Opaque *, ptr)) X(cuIpcOpenMemHandle_v2, (ptr *, Opaque, unsigned)) \
  X(cuIpcCloseMemHandle, (ptr)) \
  X(cuImportExternalMemory, (handle *, const ExternalDesc *)) \
  X(cuExternalMemoryGetMappedBuffer, (ptr *, handle, const BufferDesc *)) \
  X(cuDestroyExternalMemory, (handle)) \
  X(cuStreamCreate, (handle *, unsigned)) X(cuStreamDestroy_v2, (handle)) \
  X(cuStreamSynchronize, (handle)) X(cuStreamQuery, (handle)) X(cuStreamGetCtx, (handle, handle *)) \
  X(cuStreamGetFlags, (handle, unsigned *)) X(cuStreamGetId, (handle, unsigned long long *)) \
  X(cuStreamWaitEvent, (handle, handle, unsigned)) \
  X(cuStreamBeginCapture_v2, (handle, int)) X(cuStreamEndCapture, (handle, handle *)) \
  X(cuStreamIsCapturing, (handle, int *)) \
  X(cuStreamGetCaptureInfo_v2, (handle, int *, uint64_t *, handle *, const handle **, size_t *)) \
  X(cuStreamBeginCaptureToGraph, (handle, handle, const handle *, const void *, size_t, int)) \
  X(cuThreadExchangeStreamCaptureMode, (int *)) \
  X(cuLaunchHostFunc, (handle, void (*)(void *), void *)) \
  X(cuEventCreate, (handle *, unsigned)) X(cuEventDestroy_v2, (handle)) \
  X(cuEventRecord, (handle, handle)) X(cuEventQuery, (handle)) X(cuEventSynchronize, (handle)) \
  X(cuEventElapsedTime, (float *, handle, handle)) \
  X(cuModuleLoadData, (handle *, const void *)) X(cuModuleUnload, (handle)) \
  X(cuModuleGetFunction, (handle *, handle, const char *)) \
  X(cuModuleGetGlobal_v2, (ptr *, size_t *, handle, const char *)) \
  X(cuLibraryLoadData, (handle *, const void *, void *, void *, unsigned, void *, void *, unsigned)) \
  X(cuLibraryUnload, (handle)) X(cuLibraryGetKernel, (handle *, handle, const char *)) \
  X(cuKernelGetFunction, (handle *, handle)) \
  X(cuLaunchKernel, (handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, \
                     handle, void **, void **)) \
  X(cuGraphCreate, (handle *, unsigned)) X(cuGraphDestroy, (handle)) \
  X(cuGraphClone, (handle *, handle)) X(cuGraphGetNodes, (handle, handle *, size_t *)) \
  X(cuGraphGetRootNodes, (handle, handle *, size_t *)) X(cuGraphNodeGetType, (handle, int *)) \
  X(cuGraphAddEmptyNode, (handle *, handle, const handle *, size_t)) \
  X(cuGraphAddMemAllocNode, (handle *, handle, const handle *, size_t, AllocNode *)) \
  X(cuGraphAddMemFreeNode, (handle *, handle, const handle *, size_t, ptr)) \
  X(cuGraphMemAllocNodeGetParams, (handle, AllocNode *)) X(cuGraphMemFreeNodeGetParams, (handle, ptr *)) \
  X(cuGraphAddMemsetNode, (handle *, handle, const handle *, size_t, const MemsetNode *, handle)) \
  X(cuGraphAddChildGraphNode, (handle *, handle, const handle *, size_t, handle)) \
  X(cuGraphChildGraphNodeGetGraph, (handle, handle *)) \
  X(cuGraphAddNode_v2, (handle *, handle, const handle *, const void *, size_t, NodeParams *)) \
  X(cuGraphDestroyNode, (handle)) X(cuGraphInstantiateWithFlags, (handle *, handle, unsigned long long)) \
  X(cuGraphLaunch, (handle, handle)) X(cuGraphExecDestroy, (handle)) \
  X(cuGraphExecUpdate_v2, (handle, handle, UpdateInfo *)) X(cuGraphUpload, (handle, handle)) \
  X(cuDeviceGraphMemTrim, (int)) X(cuDeviceGetGraphMemAttribute, (int, int, void *)) \
  X(cuDeviceSetGraphMemAttribute, (int, int, void *))

#define DECLARE(name, args) static int(*name) args;
FUNCTIONS(DECLARE)

static const char *section;
static int device;
static handle ctx;
static void *driver;

/* One observation. */
#define OBS(name, ...) \
  do { printf("%s.%s: ", section, name); printf(__VA_ARGS__); printf("\n"); fflush(stdout); } while (0)
#define CODE(name, call) OBS(name, "%d", (call))
#define YES(name, cond) OBS(name, "%s", (cond) ? "yes" : "no")

enum { MiB = 1 << 20, GLOBAL = 0, THREAD = 1, RELAXED = 2 };

static void load(void) {
  driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
  if (!driver) { printf("no driver: %s\n", dlerror()); exit(3); }
#define RESOLVE(name, args) \
  *(void **)&name = dlsym(driver, #name); \
  if (!name) { printf("missing export: %s\n", #name); exit(3); }
  FUNCTIONS(RESOLVE)
}

static void begin(void) {
  int r = cuInit(0);
  if (r) { printf("%s: cuInit %d\n", section, r); exit(3); }
  cuDeviceGet(&device, 0);
  r = cuCtxCreate_v2(&ctx, 0, device);
  if (r) { printf("%s: cuCtxCreate %d\n", section, r); exit(3); }
}

static size_t free_bytes(void) {
  size_t f = 0, t = 0;
  cuMemGetInfo_v2(&f, &t);
  return f;
}

static ptr alloc(size_t n) { ptr p = 0; cuMemAlloc_v2(&p, n); return p; }
static uint64_t attr(handle pool, int id) {
  uint64_t v = 0;
  cuMemPoolGetAttribute(pool, id, &v);
  return v;
}
static uint64_t graph_attr(int id) {
  uint64_t v = 0;
  cuDeviceGetGraphMemAttribute(device, id, &v);
  return v;
}
static handle stream(unsigned flags) { handle s = 0; cuStreamCreate(&s, flags); return s; }
static PoolProps pool_props(int handle_types) {
  PoolProps p;
  memset(&p, 0, sizeof p);
  p.type = 1;
  p.handle_types = handle_types;
  p.location.type = 1;
  p.location.id = device;
  return p;
}
static AllocProp vmm_props(int handle_types) {
  AllocProp p;
  memset(&p, 0, sizeof p);
  p.type = 1;
  p.handle_types = handle_types;
  p.location.type = 1;
  p.location.id = device;
  return p;
}
static AllocNode alloc_node(size_t bytes) {
  AllocNode n;
  memset(&n, 0, sizeof n);
  n.pool = pool_props(0);
  n.bytes = bytes;
  return n;
}
/* Does a fill of one byte value read back? */
static int holds(ptr p, unsigned char value, size_t n) {
  unsigned char *b = malloc(n);
  int ok = cuMemcpyDtoH_v2(b, p, n) == 0;
  for (size_t i = 0; ok && i < n; i++) ok = b[i] == value;
  free(b);
  return ok;
}

/* "trap" itself is a reserved word of PTX. */
static const char ptx[] =
    ".version 7.0\n.target sm_75\n.address_size 64\n"
    ".global .align 4 .b8 table[4096];\n"
    ".visible .entry kernel_noop() { ret; }\n"
    ".visible .entry kernel_trap() { trap; ret; }\n";

/* ---- initialisation, devices, errors ---- */

static void run_init(void) {
  int v = 0, n = -1;
  handle c = (handle)1;
  ptr p = 0;
  size_t f, t;
  const char *text = 0;
  CODE("version_before_init", cuDriverGetVersion(&v));
  YES("version_at_least_12000", v >= 12000);
  CODE("count_before_init", cuDeviceGetCount(&n));
  CODE("alloc_before_init", cuMemAlloc_v2(&p, 16));
  CODE("free_before_init", cuMemFree_v2(0));
  CODE("current_before_init", cuCtxGetCurrent(&c));
  CODE("info_before_init", cuMemGetInfo_v2(&f, &t));
  CODE("init_bad_flags", cuInit(1));
  CODE("init", cuInit(0));
  CODE("init_again", cuInit(0));
  CODE("count", cuDeviceGetCount(&n));
  YES("has_device", n >= 1);
  CODE("device_bad_ordinal", cuDeviceGet(&v, 4096));
  CODE("device_null", cuDeviceGet(0, 0));
  CODE("device", cuDeviceGet(&device, 0));
  char name[8], bus[16];
  CODE("name_truncated", cuDeviceGetName(name, sizeof name, device));
  YES("name_terminated", memchr(name, 0, sizeof name) != 0);
  CODE("bus_id", cuDeviceGetPCIBusId(bus, sizeof bus, device));
  CODE("attribute_bad", cuDeviceGetAttribute(&v, 100000, device));
  cuDeviceGetAttribute(&v, 41, device);
  YES("unified_addressing", v == 1);
  cuDeviceGetAttribute(&v, 102, device);
  YES("virtual_memory", v == 1);
  cuDeviceGetAttribute(&v, 115, device);
  YES("memory_pools", v == 1);
  CODE("current_none", cuCtxGetCurrent(&c));
  YES("current_is_null", c == 0);
  CODE("error_name", cuGetErrorName(2, &text));
  OBS("error_name_2", "%s", text);
  CODE("error_name_unknown", cuGetErrorName(123456, &text));
  YES("error_name_unknown_null", text == 0);
  CODE("error_string_unknown", cuGetErrorString(123456, &text));
  /* NULL for the text's place makes the driver crash. */
}

/* What works without a current context. */
static void run_nocontext(void) {
  cuInit(0);
  cuDeviceGet(&device, 0);
  ptr p = 0, va = 0, h = 0;
  size_t f, t, g = 0;
  handle x = 0;
  int dev;
  void *host = 0;
  CODE("alloc", cuMemAlloc_v2(&p, 16));
  CODE("free_null", cuMemFree_v2(0));
  CODE("free_bad", cuMemFree_v2(0x1000));
  CODE("info", cuMemGetInfo_v2(&f, &t));
  CODE("host_alloc", cuMemHostAlloc(&host, 16, 0));
  CODE("ctx_device", cuCtxGetDevice(&dev));
  CODE("synchronize", cuCtxSynchronize());
  CODE("stream_create", cuStreamCreate(&x, 0));
  CODE("alloc_async", cuMemAllocAsync(&p, 16, 0));
  CODE("pop", cuCtxPopCurrent_v2(&x));
  CODE("default_pool", cuDeviceGetDefaultMemPool(&x, device));
  uint64_t v = 0;
  CODE("pool_attribute", cuMemPoolGetAttribute(x, 5, &v));
  PoolProps pp = pool_props(0);
  CODE("pool_create", cuMemPoolCreate(&x, &pp));
  CODE("pool_destroy", cuMemPoolDestroy(x));
  AllocProp ap = vmm_props(0);
  CODE("granularity", cuMemGetAllocationGranularity(&g, &ap, 0));
  CODE("mem_create", cuMemCreate(&h, g ? g : 2 * MiB, &ap, 0));
  CODE("reserve", cuMemAddressReserve(&va, g ? g : 2 * MiB, 0, 0, 0));
  CODE("map", cuMemMap(va, g ? g : 2 * MiB, 0, h, 0));
  Access acc = {{1, device}, 3};
  CODE("set_access", cuMemSetAccess(va, g ? g : 2 * MiB, &acc, 1));
  CODE("unmap", cuMemUnmap(va, g ? g : 2 * MiB));
  CODE("release", cuMemRelease(h));
  CODE("address_free", cuMemAddressFree(va, g ? g : 2 * MiB));
  CODE("graph_create", cuGraphCreate(&x, 0));
  CODE("graph_destroy", cuGraphDestroy(x));
  CODE("graph_trim", cuDeviceGraphMemTrim(device));
  CODE("pointer_attribute", cuPointerGetAttribute(&v, 2, 0x1000));
  CODE("range", cuMemGetAddressRange_v2(&p, &f, 0x1000));
  CODE("range_null_outs", cuMemGetAddressRange_v2(0, 0, 0x1000));
  CODE("free_host_null", cuMemFreeHost(0));
  CODE("free_host_bad", cuMemFreeHost((void *)0x1000));
  CODE("free_async_null", cuMemFreeAsync(0, 0));
  CODE("unregister", cuMemHostUnregister(&v));
  CODE("host_flags", cuMemHostGetFlags((unsigned *)&v, &v));
  CODE("array_destroy_null", cuArrayDestroy(0));
  CODE("external_destroy_null", cuDestroyExternalMemory(0));
  CODE("memset", cuMemsetD8_v2(0x1000, 0, 1));
  CODE("limit", cuCtxGetLimit(&f, 2));
  int mode = RELAXED;
  CODE("exchange_mode", cuThreadExchangeStreamCaptureMode(&mode));
  OBS("mode_was", "%d", mode);
}

/* ---- contexts ---- */

static void run_context(void) {
  begin();
  handle a = 0, b = 0, c = 0;
  unsigned u = 9;
  unsigned long long i1 = 0, i2 = 0;
  size_t n;
  CODE("current", cuCtxGetCurrent(&a));
  YES("current_is_created", a == ctx);
  CODE("current_null_out", cuCtxGetCurrent(0));
  CODE("create_second", cuCtxCreate_v4(&b, 0, 0, device));
  cuCtxGetCurrent(&a);
  YES("second_is_current", a == b);
  CODE("create_bad_device", cuCtxCreate_v2(&c, 0, 4096));
  CODE("create_bad_flags", cuCtxCreate_v2(&c, 0x10000000, device));
  cuCtxGetId(ctx, &i1);
  cuCtxGetId(b, &i2);
  YES("ids_differ", i1 != i2);
  CODE("api_version", cuCtxGetApiVersion(b, &u));
  OBS("api_version_value", "%u", u);
  CODE("flags", cuCtxGetFlags(&u));
  CODE("pop", cuCtxPopCurrent_v2(&c));
  YES("popped_second", c == b);
  cuCtxGetCurrent(&a);
  YES("first_again", a == ctx);
  CODE("push", cuCtxPushCurrent_v2(b));
  CODE("pop_null_out", cuCtxPopCurrent_v2(0));
  CODE("set_null", cuCtxSetCurrent(0));
  CODE("current_after_set_null", cuCtxGetCurrent(&a));
  YES("none_current", a == 0);
  CODE("set", cuCtxSetCurrent(ctx));
  CODE("limit_get", cuCtxGetLimit(&n, 2));
  CODE("limit_bad", cuCtxGetLimit(&n, 4096));
  printf("%s.limits:", section);
  for (int i = 0; i < 12; i++) printf(" %d", cuCtxGetLimit(&n, i));
  printf("\n");
  CODE("limit_set_bad", cuCtxSetLimit(4096, 1));
  CODE("destroy_null", cuCtxDestroy_v2(0));
  CODE("destroy_other", cuCtxDestroy_v2(b));
  cuCtxGetCurrent(&a);
  YES("first_still_current", a == ctx);
  size_t before = free_bytes();
  cuCtxCreate_v2(&b, 0, device);
  YES("context_costs_memory", free_bytes() < before);
  CODE("destroy_current", cuCtxDestroy_v2(b));
  cuCtxGetCurrent(&a);
  YES("destroy_pops", a == ctx);
  YES("memory_back", free_bytes() == before);
}

static handle other_ctx;
static void *use_destroyed(void *arg) {
  (void)arg;
  handle c = 0;
  ptr p = 0;
  int dev;
  size_t f, t;
  cuCtxSetCurrent(other_ctx);
  pthread_barrier_t *b = arg;
  pthread_barrier_wait(b);
  pthread_barrier_wait(b);
  CODE("thread_current", cuCtxGetCurrent(&c));
  YES("thread_still_current", c == other_ctx);
  CODE("thread_alloc", cuMemAlloc_v2(&p, 16));
  CODE("thread_device", cuCtxGetDevice(&dev));
  CODE("thread_info", cuMemGetInfo_v2(&f, &t));
  CODE("thread_synchronize", cuCtxSynchronize());
  CODE("thread_free_null", cuMemFree_v2(0));
  CODE("thread_set", cuCtxSetCurrent(other_ctx));
  CODE("thread_stream", cuStreamCreate(&c, 0));
  CODE("thread_destroy_again", cuCtxDestroy_v2(other_ctx));
  CODE("thread_pop", cuCtxPopCurrent_v2(&c));
  return 0;
}

/* What ends with a context, and what a later free says. */
static void run_ctx_destroy(void) {
  begin();
  handle c2 = 0, pool = 0, s, m, arr = 0, x;
  ptr lin, pitch, man = 0, async = 0, frompool = 0, h = 0, va = 0, v;
  size_t p, g;
  void *host = 0;
  AllocProp ap = vmm_props(0);
  PoolProps pp = pool_props(0);
  Access acc = {{1, device}, 3};
  cuMemGetAllocationGranularity(&g, &ap, 0);
  size_t before = free_bytes();
  cuCtxCreate_v2(&c2, 0, device);
  lin = alloc(4 * MiB);
  cuMemAllocPitch_v2(&pitch, &p, 1000, 64, 4);
  cuMemAllocManaged(&man, 1 * MiB, 1);
  cuMemHostAlloc(&host, 1 * MiB, 0);
  ArrayDesc d = {64, 64, 0x20, 1};
  cuArrayCreate_v2(&arr, &d);
  s = stream(1);
  cuMemAllocAsync(&async, 1 * MiB, s);
  cuMemPoolCreate(&pool, &pp);
  cuMemAllocFromPoolAsync(&frompool, 1 * MiB, pool, s);
  cuStreamSynchronize(s);
  cuMemCreate(&h, g, &ap, 0);
  cuMemAddressReserve(&va, g, 0, 0, 0);
  cuMemMap(va, g, 0, h, 0);
  cuMemSetAccess(va, g, &acc, 1);
  (void)m;
  CODE("destroy", cuCtxDestroy_v2(c2));
  cuCtxGetCurrent(&x);
  YES("back_in_first", x == ctx);
  CODE("free_linear", cuMemFree_v2(lin));
  CODE("free_pitch", cuMemFree_v2(pitch));
  CODE("free_managed", cuMemFree_v2(man));
  CODE("free_host", cuMemFreeHost(host));
  CODE("set_access_vmm", cuMemSetAccess(va, g, &acc, 1));
  CODE("copy_vmm", cuMemcpyHtoD_v2(va, &v, 8));
  /* The copy may still be under way: to unmap its target now would make the device fail. */
  CODE("synchronize_vmm", cuCtxSynchronize());
  CODE("unmap_vmm", cuMemUnmap(va, g));
  CODE("release_vmm", cuMemRelease(h));
  CODE("address_free_vmm", cuMemAddressFree(va, g));
  CODE("free_async", cuMemFreeAsync(async, 0));
  CODE("free_from_pool", cuMemFree_v2(frompool));
  CODE("pool_destroy", cuMemPoolDestroy(pool));
  cuCtxSynchronize();
  cuDeviceGetDefaultMemPool(&pool, device);
  cuMemPoolTrimTo(pool, 0);
  YES("memory_back", free_bytes() == before);

  CODE("create_other", cuCtxCreate_v2(&other_ctx, 0, device));
  cuCtxPopCurrent_v2(&x);
  pthread_barrier_t b;
  pthread_barrier_init(&b, 0, 2);
  pthread_t t;
  pthread_create(&t, 0, use_destroyed, &b);
  pthread_barrier_wait(&b);
  CODE("destroy_while_current_elsewhere", cuCtxDestroy_v2(other_ctx));
  pthread_barrier_wait(&b);
  pthread_join(t, 0);
}

static void run_primary(void) {
  cuInit(0);
  cuDeviceGet(&device, 0);
  unsigned flags = 9;
  int active = 9;
  handle a = 0, b = 0, pool;
  ptr lin = 0, async = 0, h = 0, again = 0;
  CODE("state", cuDevicePrimaryCtxGetState(device, &flags, &active));
  OBS("inactive", "%u %d", flags, active);
  CODE("release_unretained", cuDevicePrimaryCtxRelease_v2(device));
  CODE("reset_unretained", cuDevicePrimaryCtxReset_v2(device));
  CODE("set_flags", cuDevicePrimaryCtxSetFlags_v2(device, 4));
  CODE("retain", cuDevicePrimaryCtxRetain(&a, device));
  CODE("retain_again", cuDevicePrimaryCtxRetain(&b, device));
  YES("same_handle", a == b);
  cuDevicePrimaryCtxGetState(device, &flags, &active);
  OBS("active", "%u %d", flags, active);
  cuCtxGetCurrent(&b);
  YES("retain_not_current", b == 0);
  CODE("set", cuCtxSetCurrent(a));
  size_t before = free_bytes();
  lin = alloc(4 * MiB);
  cuMemAllocAsync(&async, 1 * MiB, 0);
  cuCtxSynchronize();
  AllocProp ap = vmm_props(0);
  size_t g = 2 * MiB;
  cuMemGetAllocationGranularity(&g, &ap, 0);
  cuMemCreate(&h, g, &ap, 0);
  CODE("destroy_primary", cuCtxDestroy_v2(a));
  CODE("reset", cuDevicePrimaryCtxReset_v2(device));
  cuDevicePrimaryCtxGetState(device, &flags, &active);
  OBS("after_reset", "%d", active);
  cuCtxGetCurrent(&b);
  YES("reset_keeps_current", b == a);
  CODE("alloc_after_reset", cuMemAlloc_v2(&again, 16));
  CODE("free_after_reset", cuMemFree_v2(lin));
  CODE("synchronize_after_reset", cuCtxSynchronize());
  CODE("free_null_after_reset", cuMemFree_v2(0));
  CODE("release_after_reset", cuDevicePrimaryCtxRelease_v2(device));
  CODE("retain_after_reset", cuDevicePrimaryCtxRetain(&b, device));
  YES("handle_survives_reset", a == b);
  CODE("set_after_reset", cuCtxSetCurrent(b));
  CODE("free_linear_of_old", cuMemFree_v2(lin));
  CODE("free_async_of_old", cuMemFree_v2(async));
  CODE("release_vmm_of_old", cuMemRelease(h));
  cuDeviceGetDefaultMemPool(&pool, device);
  cuMemPoolTrimTo(pool, 0);
  YES("memory_back", free_bytes() == before);
  CODE("alloc", cuMemAlloc_v2(&again, 16));
  CODE("release", cuDevicePrimaryCtxRelease_v2(device));
  cuDevicePrimaryCtxGetState(device, &flags, &active);
  OBS("after_release", "%d", active);
  CODE("release_too_often", cuDevicePrimaryCtxRelease_v2(device));
  CODE("use_after_last_release", cuMemAlloc_v2(&again, 16));
  CODE("release_once_more", cuDevicePrimaryCtxRelease_v2(device));
}

/* ---- linear, host, managed memory, pointers ---- */

static void run_linear(void) {
  begin();
  ptr a = 0, b = 0, base = 0;
  size_t n = 0, pitch = 0, before, mid;
  char text[256], back[256];
  for (int i = 0; i < 256; i++) text[i] = (char)i;
  CODE("alloc", cuMemAlloc_v2(&a, 1000));
  YES("aligned_512", a % 512 == 0);
  CODE("alloc_zero", cuMemAlloc_v2(&b, 0));
  CODE("alloc_null", cuMemAlloc_v2(0, 16));
  CODE("alloc_huge", cuMemAlloc_v2(&b, (size_t)1 << 50));
  CODE("alloc_max", cuMemAlloc_v2(&b, ~(size_t)0));
  CODE("range", cuMemGetAddressRange_v2(&base, &n, a + 10));
  YES("range_base", base == a);
  OBS("range_size", "%zu", n);
  CODE("range_null_outs", cuMemGetAddressRange_v2(0, 0, a));
  CODE("range_bad", cuMemGetAddressRange_v2(&base, &n, 0x1000));
  CODE("htod", cuMemcpyHtoD_v2(a, text, 256));
  CODE("dtoh", cuMemcpyDtoH_v2(back, a, 256));
  YES("bytes_right", !memcmp(text, back, 256));
  CODE("copy_zero", cuMemcpyHtoD_v2(a, text, 0));
  CODE("copy_to_null", cuMemcpyHtoD_v2(0, text, 16));
  CODE("copy_from_freed_address", cuMemcpyDtoH_v2(back, 0x1000, 16));
  CODE("memset", cuMemsetD8_v2(a, 7, 1000));
  YES("memset_right", holds(a, 7, 1000));
  CODE("memset32_misaligned", cuMemsetD32_v2(a + 1, 7, 4));
  CODE("free_interior", cuMemFree_v2(a + 256));
  CODE("free", cuMemFree_v2(a));
  CODE("double_free", cuMemFree_v2(a));
  CODE("free_null", cuMemFree_v2(0));
  CODE("free_bad", cuMemFree_v2(0x1000));
  CODE("free_host_pointer", cuMemFree_v2((ptr)(uintptr_t)text));
  a = alloc(1000);
  cuMemFree_v2(a);
  b = alloc(1000);
  YES("address_reused", a == b);
  cuMemFree_v2(b);
  before = free_bytes();
  a = alloc(64 * MiB);
  mid = free_bytes();
  OBS("large_charge_mib", "%zu", (before - mid) / MiB);
  cuMemFree_v2(a);
  YES("charge_back", free_bytes() == before);
  a = alloc(64 * MiB + 1);
  OBS("rounding_mib", "%zu", (before - free_bytes()) / MiB);
  cuMemFree_v2(a);
  a = alloc(1);
  size_t one = free_bytes();
  b = alloc(1);
  YES("second_small_is_free_of_charge", free_bytes() == one);
  cuMemFree_v2(a);
  cuMemFree_v2(b);
  YES("small_back", free_bytes() == before);
  CODE("pitch", cuMemAllocPitch_v2(&a, &pitch, 1000, 10, 4));
  YES("pitch_at_least_width", pitch >= 1000 && pitch % 512 == 0);
  cuMemGetAddressRange_v2(&base, &n, a);
  YES("pitch_range_is_pitch_times_height", n == pitch * 10);
  CODE("pitch_free", cuMemFree_v2(a));
  CODE("pitch_zero_width", cuMemAllocPitch_v2(&a, &pitch, 0, 10, 4));
  CODE("pitch_zero_height", cuMemAllocPitch_v2(&a, &pitch, 1000, 0, 4));
  CODE("pitch_bad_element", cuMemAllocPitch_v2(&a, &pitch, 1000, 10, 3));
  CODE("info_null", cuMemGetInfo_v2(0, 0));
}

static void run_host(void) {
  begin();
  void *p = 0, *q = 0;
  ptr d = 0, base = 0;
  unsigned flags = 99;
  size_t n = 0, before = free_bytes();
  CODE("alloc", cuMemHostAlloc(&p, 10000, 0));
  YES("page_aligned", (uintptr_t)p % 4096 == 0);
  memset(p, 3, 10000);
  CODE("alloc_zero", cuMemHostAlloc(&q, 0, 0));
  CODE("alloc_bad_flags", cuMemHostAlloc(&q, 16, 0x100));
  CODE("alloc_null", cuMemHostAlloc(0, 16, 0));
  CODE("alloc_huge", cuMemHostAlloc(&q, (size_t)1 << 50, 0));
  YES("no_device_charge", free_bytes() == before);
  CODE("device_pointer", cuMemHostGetDevicePointer_v2(&d, p, 0));
  YES("device_pointer_same", d == (ptr)(uintptr_t)p);
  CODE("flags", cuMemHostGetFlags(&flags, p));
  OBS("flags_value", "%u", flags);
  CODE("range", cuMemGetAddressRange_v2(&base, &n, (ptr)(uintptr_t)p));
  OBS("range_size", "%zu", n);
  CODE("free_as_device", cuMemFree_v2((ptr)(uintptr_t)p));
  CODE("free_interior", cuMemFreeHost((char *)p + 8));
  CODE("free", cuMemFreeHost(p));
  CODE("double_free", cuMemFreeHost(p));
  CODE("free_null", cuMemFreeHost(0));
  CODE("alloc_v2", cuMemAllocHost_v2(&p, 4096));
  CODE("flags_v2", cuMemHostGetFlags(&flags, p));
  OBS("flags_v2_value", "%u", flags);
  CODE("free_v2", cuMemFreeHost(p));
  char *m = aligned_alloc(4096, 16384);
  memset(m, 5, 16384);
  CODE("register", cuMemHostRegister_v2(m, 16384, 0));
  CODE("register_again", cuMemHostRegister_v2(m, 16384, 0));
  CODE("register_overlap", cuMemHostRegister_v2(m + 4096, 4096, 0));
  CODE("register_null", cuMemHostRegister_v2(0, 4096, 0));
  CODE("register_zero", cuMemHostRegister_v2(m, 0, 0));
  CODE("registered_device_pointer", cuMemHostGetDevicePointer_v2(&d, m, 0));
  YES("registered_same", d == (ptr)(uintptr_t)m);
  CODE("registered_free_host", cuMemFreeHost(m));
  CODE("unregister_interior", cuMemHostUnregister(m + 4096));
  CODE("unregister", cuMemHostUnregister(m));
  CODE("unregister_again", cuMemHostUnregister(m));
  CODE("device_pointer_unregistered", cuMemHostGetDevicePointer_v2(&d, m, 0));
  free(m);
}

static void run_managed(void) {
  begin();
  ptr a = 0, b = 0;
  int yes = 9;
  CODE("alloc", cuMemAllocManaged(&a, 1 * MiB, 1));
  CODE("alloc_zero", cuMemAllocManaged(&b, 0, 1));
  CODE("alloc_bad_flags", cuMemAllocManaged(&b, 16, 0));
  CODE("alloc_single", cuMemAllocManaged(&b, 16, 4));
  memset((void *)(uintptr_t)a, 1, MiB);
  YES("host_can_write", ((char *)(uintptr_t)a)[MiB - 1] == 1);
  CODE("is_managed", cuPointerGetAttribute(&yes, 8, a));
  OBS("is_managed_value", "%d", yes);
  CODE("memset", cuMemsetD8_v2(a, 9, MiB));
  cuCtxSynchronize();
  YES("host_sees", ((char *)(uintptr_t)a)[5] == 9);
  CODE("free_async", cuMemFreeAsync(a, 0));
  CODE("free", cuMemFree_v2(a));
}

static void describe(const char *name, ptr p) {
  static const int ids[] = {1, 2, 4, 6, 8, 9, 10, 11, 12, 13, 14, 16, 17, 18, 19};
  printf("%s.%s:", section, name);
  for (unsigned i = 0; i < sizeof ids / sizeof *ids; i++) {
    uint64_t v[2] = {0, 0};
    int r = cuPointerGetAttribute(v, ids[i], p);
    if (r) printf(" %d=e%d", ids[i], r);
    else if (ids[i] == 1) printf(" 1=%s", v[0] == (uint64_t)(uintptr_t)ctx ? "ctx" : v[0] ? "other" : "null");
    else if (ids[i] == 4 || ids[i] == 11 || ids[i] == 19)
      printf(" %d=%s", ids[i], v[0] == p ? "self" : v[0] < p ? "below" : "above");
    else if (ids[i] == 17) printf(" 17=%s", v[0] ? "pool" : "none");
    else printf(" %d=%llu", ids[i], (unsigned long long)v[0]);
  }
  printf("\n");
  fflush(stdout);
}

static void run_pointer(void) {
  begin();
  ptr lin = alloc(1 * MiB), async = 0, man = 0, va = 0, h = 0, large = alloc(3 * MiB), second = alloc(1000);
  ptr async2 = 0, man2 = 0;
  void *host = 0, *host2 = 0;
  static char plain[64];
  size_t g = 0;
  AllocProp ap = vmm_props(0);
  Access acc = {{1, device}, 3};
  cuMemAllocAsync(&async, 1 * MiB, 0);
  cuMemAllocManaged(&man, 1 * MiB, 1);
  cuMemHostAlloc(&host, 1 * MiB, 0);
  cuMemAllocAsync(&async2, 1000, 0);
  cuMemAllocManaged(&man2, 1000, 1);
  cuMemHostAlloc(&host2, 1000, 0);
  char *m = aligned_alloc(4096, 16384);
  cuMemHostRegister_v2(m, 16384, 0);
  cuMemGetAllocationGranularity(&g, &ap, 0);
  cuMemCreate(&h, g, &ap, 0);
  cuMemAddressReserve(&va, 2 * g, 0, 0, 0);
  describe("linear", lin);
  describe("linear_interior", lin + 1000);
  describe("async", async);
  describe("managed", man);
  describe("host", (ptr)(uintptr_t)host);
  describe("large", large);
  describe("second", second);
  describe("async_second", async2);
  describe("managed_second", man2);
  describe("host_second", (ptr)(uintptr_t)host2);
  describe("registered", (ptr)(uintptr_t)m);
  describe("pageable", (ptr)(uintptr_t)plain);
  describe("nothing", 0x1000);
  describe("reserved", va);
  cuMemMap(va, g, 0, h, 0);
  describe("mapped_no_access", va);
  cuMemSetAccess(va, g, &acc, 1);
  describe("mapped", va);
  describe("reserved_unmapped_half", va + g);
  uint64_t id1 = 0, id2 = 0;
  cuPointerGetAttribute(&id1, 7, lin);
  cuMemFree_v2(lin);
  ptr again = alloc(1 * MiB);
  cuPointerGetAttribute(&id2, 7, again);
  YES("buffer_id_unique_on_reuse", id1 != id2);
  CODE("attribute_null", cuPointerGetAttribute(0, 2, again));
  CODE("attribute_bad", cuPointerGetAttribute(&id1, 4096, again));
  int ids[2] = {2, 9};
  int type = 7, dev = 7;
  void *outs[2] = {&type, &dev};
  CODE("attributes", cuPointerGetAttributes(2, ids, outs, again));
  OBS("attributes_values", "%d %d", type, dev);
  CODE("attributes_nothing", cuPointerGetAttributes(2, ids, outs, 0x1000));
  OBS("attributes_nothing_values", "%d %d", type, dev);
  cuMemFree_v2(again);
  CODE("after_free", cuPointerGetAttribute(&type, 2, again));
}

/* ---- stream-ordered memory and pools ---- */

static void run_async(void) {
  begin();
  handle s = stream(1), pool = 0;
  ptr a = 0, b = 0;
  cuDeviceGetDefaultMemPool(&pool, device);
  CODE("alloc", cuMemAllocAsync(&a, 1000, s));
  YES("aligned_256", a % 256 == 0);
  YES("aligned_512", a % 512 == 0);
  OBS("used_after_1000", "%llu", (unsigned long long)attr(pool, 7));
  YES("reserved_at_least_used", attr(pool, 5) >= attr(pool, 7));
  OBS("reserved_mib_after_1000", "%llu", (unsigned long long)attr(pool, 5) / MiB);
  CODE("alloc_zero", cuMemAllocAsync(&b, 0, s));
  YES("alloc_zero_null", b == 0);
  CODE("alloc_null", cuMemAllocAsync(0, 16, s));
  CODE("alloc_huge", cuMemAllocAsync(&b, (size_t)1 << 50, s));
  CODE("copy", cuMemsetD8_v2(a, 4, 1000));
  YES("copy_right", holds(a, 4, 1000));
  CODE("free_null", cuMemFreeAsync(0, s));
  CODE("free_interior", cuMemFreeAsync(a + 256, s));
  CODE("free_bad", cuMemFreeAsync(0x1000, s));
  CODE("free", cuMemFreeAsync(a, s));
  OBS("used_after_free", "%llu", (unsigned long long)attr(pool, 7));
  YES("reserved_after_free", attr(pool, 5) > 0);
  CODE("double_free", cuMemFreeAsync(a, s));
  cuMemAllocAsync(&a, 1000, s);
  cuMemFreeAsync(a, s);
  cuMemAllocAsync(&b, 1000, s);
  YES("address_reused", a == b);
  cuMemFreeAsync(b, s);
  CODE("synchronize", cuStreamSynchronize(s));
  YES("released_by_synchronize", attr(pool, 5) == 0);
  uint64_t keep = ~(uint64_t)0;
  CODE("set_threshold", cuMemPoolSetAttribute(pool, 4, &keep));
  cuMemAllocAsync(&a, 1000, s);
  CODE("free_sync_of_async", cuMemFree_v2(a));
  OBS("used_after_sync_free", "%llu", (unsigned long long)attr(pool, 7));
  cuStreamSynchronize(s);
  YES("kept_under_threshold", attr(pool, 5) > 0);
  CODE("trim", cuMemPoolTrimTo(pool, 0));
  YES("trimmed", attr(pool, 5) == 0);
  a = alloc(1000);
  CODE("free_async_of_linear", cuMemFreeAsync(a, s));
  cuStreamSynchronize(s);
  CODE("free_of_that_again", cuMemFree_v2(a));
  size_t before = free_bytes();
  cuMemAllocAsync(&a, 100 * MiB, s);
  cuStreamSynchronize(s);
  OBS("large_reserve_mib", "%llu", (unsigned long long)attr(pool, 5) / MiB);
  YES("large_charged", free_bytes() < before);
  YES("reserved_high", attr(pool, 6) >= attr(pool, 5));
  cuMemFreeAsync(a, s);
  cuStreamSynchronize(s);
  YES("used_high_stays", attr(pool, 8) >= 100 * MiB);
  uint64_t zero = 0, one = 1;
  CODE("reset_high", cuMemPoolSetAttribute(pool, 8, &zero));
  OBS("used_high_after_reset", "%llu", (unsigned long long)attr(pool, 8));
  CODE("set_high_to_one", cuMemPoolSetAttribute(pool, 8, &one));
  CODE("set_current", cuMemPoolSetAttribute(pool, 7, &zero));
  CODE("attribute_bad", cuMemPoolGetAttribute(pool, 99, &one));
  int reuse = 9;
  CODE("reuse", cuMemPoolGetAttribute(pool, 1, &reuse));
  OBS("reuse_default", "%d", reuse);
  CODE("ptsz", cuMemAllocAsync_ptsz(&a, 1000, 0));
  CODE("ptsz_free", cuMemFree_v2(a));
}

static void run_pool(void) {
  begin();
  handle s = stream(1), def = 0, pool = 0, cur = 0;
  ptr a = 0, b = 0;
  PoolProps pp = pool_props(0);
  Location loc = {1, device};
  int flags = 9;
  CODE("default", cuDeviceGetDefaultMemPool(&def, device));
  CODE("current", cuDeviceGetMemPool(&cur, device));
  YES("default_is_current", def == cur);
  CODE("default_bad_device", cuDeviceGetDefaultMemPool(&cur, 4096));
  CODE("by_location", cuMemGetMemPool(&cur, &loc, 1));
  YES("by_location_same", cur == def);
  CODE("destroy_default", cuMemPoolDestroy(def));
  size_t before = free_bytes();
  CODE("create", cuMemPoolCreate(&pool, &pp));
  YES("create_costs_nothing", free_bytes() == before);
  CODE("create_null", cuMemPoolCreate(0, &pp));
  CODE("create_null_props", cuMemPoolCreate(&cur, 0));
  pp.location.id = 4096;
  CODE("create_bad_device", cuMemPoolCreate(&cur, &pp));
  pp = pool_props(0);
  pp.type = 0;
  CODE("create_bad_type", cuMemPoolCreate(&cur, &pp));
  pp = pool_props(0);
  CODE("access", cuMemPoolGetAccess(&flags, pool, &loc));
  OBS("access_own", "%d", flags);
  CODE("alloc", cuMemAllocFromPoolAsync(&a, 1 * MiB, pool, s));
  CODE("set", cuDeviceSetMemPool(device, pool));
  CODE("alloc_async", cuMemAllocAsync(&b, 1 * MiB, s));
  handle of = 0;
  cuPointerGetAttribute(&of, 17, b);
  YES("alloc_async_from_set_pool", of == pool);
  OBS("used_two", "%llu", (unsigned long long)attr(pool, 7) / MiB);
  CODE("export_unshareable", cuMemPoolExportToShareableHandle(&flags, pool, 1, 0));
  CODE("destroy_with_live", cuMemPoolDestroy(pool));
  cuDeviceGetMemPool(&cur, device);
  YES("current_back_to_default", cur == def);
  YES("live_still_charged", free_bytes() < before);
  CODE("copy_into_live", cuMemsetD8_v2(a, 6, 1 * MiB));
  YES("live_holds", holds(a, 6, 1 * MiB));
  CODE("free_first", cuMemFreeAsync(a, s));
  CODE("free_second", cuMemFreeAsync(b, s));
  CODE("synchronize", cuStreamSynchronize(s));
  YES("memory_back", free_bytes() == before);
  pp.max_size = 64 * MiB;
  CODE("create_bounded", cuMemPoolCreate(&pool, &pp));
  CODE("bounded_alloc", cuMemAllocFromPoolAsync(&a, 32 * MiB, pool, s));
  CODE("bounded_too_much", cuMemAllocFromPoolAsync(&b, 128 * MiB, pool, s));
  CODE("bounded_free", cuMemFreeAsync(a, s));
  CODE("bounded_destroy", cuMemPoolDestroy(pool));
  cuStreamSynchronize(s);
  YES("bounded_back", free_bytes() == before);
}

/* ---- arrays ---- */

static void run_array(void) {
  begin();
  handle a = 0, m = 0, l0 = 0, l1 = 0, again = 0, bad = 0;
  ArrayDesc d = {64, 64, 0x20, 1}, back;
  Array3D d3 = {64, 64, 0, 0x20, 1, 0};
  char row[256], got[256];
  memset(row, 5, sizeof row);
  size_t before = free_bytes();
  CODE("create", cuArrayCreate_v2(&a, &d));
  CODE("create_null", cuArrayCreate_v2(0, &d));
  ArrayDesc z = {0, 64, 0x20, 1};
  CODE("create_zero_width", cuArrayCreate_v2(&bad, &z));
  ArrayDesc f = {64, 64, 0x7777, 1};
  CODE("create_bad_format", cuArrayCreate_v2(&bad, &f));
  ArrayDesc c3 = {64, 64, 0x20, 3};
  CODE("create_three_channels", cuArrayCreate_v2(&bad, &c3));
  CODE("descriptor", cuArrayGetDescriptor_v2(&back, a));
  OBS("descriptor_values", "%zu %zu %d %u", back.width, back.height, back.format, back.channels);
  CODE("copy_in", cuMemcpyHtoA_v2(a, 0, row, 256));
  CODE("copy_out", cuMemcpyAtoH_v2(got, a, 0, 256));
  YES("bytes_right", !memcmp(row, got, 256));
  CODE("free_as_pointer", cuMemFree_v2((ptr)(uintptr_t)a));
  CODE("destroy", cuArrayDestroy(a));
  CODE("create_3d", cuArray3DCreate_v2(&a, &d3));
  CODE("destroy_3d", cuArrayDestroy(a));
  CODE("mipmap", cuMipmappedArrayCreate(&m, &d3, 4));
  CODE("level_0", cuMipmappedArrayGetLevel(&l0, m, 0));
  CODE("level_1", cuMipmappedArrayGetLevel(&l1, m, 1));
  cuArrayGetDescriptor_v2(&back, l1);
  OBS("level_1_size", "%zu %zu", back.width, back.height);
  cuMipmappedArrayGetLevel(&again, m, 1);
  YES("level_handle_same", l1 == again);
  CODE("level_bad", cuMipmappedArrayGetLevel(&bad, m, 9));
  CODE("mipmap_destroy", cuMipmappedArrayDestroy(m));
  Array3D big = {4096, 2048, 0, 0x20, 4, 0};
  size_t mid = free_bytes();
  CODE("large", cuArray3DCreate_v2(&a, &big));
  OBS("large_charge_mib", "%zu", (mid - free_bytes()) / MiB);
  CODE("large_destroy", cuArrayDestroy(a));
  YES("memory_back", free_bytes() == before || free_bytes() == mid);
}

/* ---- virtual memory ---- */

static void run_vmm(void) {
  begin();
  AllocProp ap = vmm_props(0), got;
  Access acc = {{1, device}, 3};
  Location loc = {1, device};
  size_t g = 0, rec = 0;
  ptr va = 0, va2 = 0, h = 0, h2 = 0, r = 0;
  unsigned long long flags = 9;
  char buf[16];
  CODE("granularity", cuMemGetAllocationGranularity(&g, &ap, 0));
  CODE("granularity_recommended", cuMemGetAllocationGranularity(&rec, &ap, 1));
  OBS("granularity_mib", "%zu %zu", g / MiB, rec / MiB);
  size_t before = free_bytes();
  CODE("create", cuMemCreate(&h, 4 * g, &ap, 0));
  OBS("create_charge_granules", "%zu", (before - free_bytes()) / g);
  CODE("create_unaligned", cuMemCreate(&h2, g + 1, &ap, 0));
  CODE("create_zero", cuMemCreate(&h2, 0, &ap, 0));
  CODE("create_null", cuMemCreate(0, g, &ap, 0));
  CODE("create_flags", cuMemCreate(&h2, g, &ap, 1));
  CODE("create_huge", cuMemCreate(&h2, (size_t)1 << 50, &ap, 0));
  AllocProp bad = ap;
  bad.location.id = 4096;
  CODE("create_bad_device", cuMemCreate(&h2, g, &bad, 0));
  CODE("properties", cuMemGetAllocationPropertiesFromHandle(&got, h));
  OBS("properties_values", "%d %d %d", got.type, got.location.type, got.location.id);
  CODE("reserve", cuMemAddressReserve(&va, 8 * g, 0, 0, 0));
  YES("reserve_aligned", va % g == 0);
  CODE("reserve_zero", cuMemAddressReserve(&va2, 0, 0, 0, 0));
  CODE("reserve_unaligned", cuMemAddressReserve(&va2, g + 1, 0, 0, 0));
  CODE("reserve_bad_alignment", cuMemAddressReserve(&va2, g, 3, 0, 0));
  CODE("map", cuMemMap(va, 4 * g, 0, h, 0));
  CODE("map_over_it", cuMemMap(va + g, g, 0, h, 0));
  CODE("map_outside", cuMemMap(va + 8 * g, g, 0, h, 0));
  CODE("map_unaligned", cuMemMap(va + 4 * g + 1, g, 0, h, 0));
  CODE("map_second_time_elsewhere", cuMemMap(va + 4 * g, 4 * g, 0, h, 0));
  CODE("copy_without_access", cuMemcpyHtoD_v2(va, "0123456789abcde", 16));
  CODE("set_access", cuMemSetAccess(va, 4 * g, &acc, 1));
  CODE("get_access", cuMemGetAccess(&flags, &loc, va));
  OBS("get_access_value", "%llu", flags);
  CODE("set_access_unmapped", cuMemSetAccess(va2 ? va2 : 0x1000, g, &acc, 1));
  CODE("set_access_second", cuMemSetAccess(va + 4 * g, 4 * g, &acc, 1));
  CODE("copy", cuMemcpyHtoD_v2(va, "0123456789abcde", 16));
  CODE("copy_alias", cuMemcpyDtoH_v2(buf, va + 4 * g, 16));
  YES("alias_same_bytes", !memcmp(buf, "0123456789abcde", 16));
  ptr base = 0;
  size_t len = 0;
  CODE("range", cuMemGetAddressRange_v2(&base, &len, va + g));
  YES("range_is_mapping", base == va && len == 4 * g);
  CODE("retain", cuMemRetainAllocationHandle(&r, (void *)(uintptr_t)(va + 5)));
  YES("retain_same_handle", r == h);
  CODE("retain_bad", cuMemRetainAllocationHandle(&r, (void *)0x1000));
  CODE("release_retained", cuMemRelease(h));
  CODE("release_while_mapped", cuMemRelease(h));
  CODE("release_too_often", cuMemRelease(h));
  YES("mapped_still_charged", free_bytes() < before);
  CODE("copy_after_release", cuMemcpyDtoH_v2(buf, va, 16));
  YES("bytes_after_release", !memcmp(buf, "0123456789abcde", 16));
  CODE("retain_after_release", cuMemRetainAllocationHandle(&r, (void *)(uintptr_t)va));
  CODE("release_that", cuMemRelease(r));
  CODE("mem_free_of_mapping", cuMemFree_v2(va));
  CODE("unmap_part", cuMemUnmap(va, g));
  CODE("unmap_too_much", cuMemUnmap(va, 9 * g));
  CODE("address_free_while_mapped", cuMemAddressFree(va, 8 * g));
  CODE("unmap_second", cuMemUnmap(va + 4 * g, 4 * g));
  YES("first_mapping_still_charged", free_bytes() < before);
  CODE("unmap_first", cuMemUnmap(va, 4 * g));
  YES("memory_back", free_bytes() == before);
  CODE("unmap_again", cuMemUnmap(va, 4 * g));
  ptr hs[4];
  for (int i = 0; i < 4; i++) { cuMemCreate(&hs[i], g, &ap, 0); cuMemMap(va + i * g, g, 0, hs[i], 0); }
  CODE("set_access_across", cuMemSetAccess(va, 4 * g, &acc, 1));
  CODE("copy_across", cuMemsetD8_v2(va, 1, 4 * g));
  CODE("unmap_middle_two", cuMemUnmap(va + g, 2 * g));
  CODE("unmap_over_hole", cuMemUnmap(va, 4 * g));
  CODE("unmap_first_of_four", cuMemUnmap(va, g));
  CODE("unmap_last_of_four", cuMemUnmap(va + 3 * g, g));
  for (int i = 0; i < 4; i++) cuMemRelease(hs[i]);
  CODE("map_offset", (cuMemCreate(&h, 2 * g, &ap, 0), cuMemMap(va, g, g, h, 0)));
  cuMemUnmap(va, g);
  cuMemRelease(h);
  CODE("address_free_part", cuMemAddressFree(va, g));
  CODE("address_free", cuMemAddressFree(va, 8 * g));
  CODE("address_free_again", cuMemAddressFree(va, 8 * g));
  CODE("release_null", cuMemRelease(0));
  YES("all_back", free_bytes() == before);
  CODE("export_unshareable", (cuMemCreate(&h, g, &ap, 0), cuMemExportToShareableHandle(buf, h, 1, 0)));
  cuMemRelease(h);
}

/* Which ranges the calls take: mappings cut, holes, more than there is. */
static void run_vmm_ranges(void) {
  begin();
  AllocProp ap = vmm_props(0);
  Access acc = {{1, device}, 3};
  size_t g = 0, n = 0;
  ptr va = 0, four = 0, one = 0, hs[4], base = 0;
  unsigned long long flags = 9;
  Location loc = {1, device};
  cuMemGetAllocationGranularity(&g, &ap, 0);
  size_t before = free_bytes();
  cuMemCreate(&four, 4 * g, &ap, 0);
  cuMemCreate(&one, g, &ap, 0);
  cuMemAddressReserve(&va, 8 * g, 0, 0, 0);
  CODE("map_four", cuMemMap(va, 4 * g, 0, four, 0));
  CODE("map_over_it", cuMemMap(va + g, 4 * g, 0, four, 0));
  CODE("map_one_over_it", cuMemMap(va + g, g, 0, one, 0));
  CODE("map_outside", cuMemMap(va + 8 * g, g, 0, one, 0));
  CODE("map_unaligned", cuMemMap(va + 4 * g + 1, g, 0, one, 0));
  CODE("map_page_unaligned", cuMemMap(va + 4 * g + 4096, g, 0, one, 0));
  CODE("map_nothing", cuMemMap(va + 4 * g, 0, 0, one, 0));
  CODE("map_offset", cuMemMap(va + 4 * g, g, g, one, 0));
  CODE("map_larger", cuMemMap(va + 4 * g, 2 * g, 0, one, 0));
  CODE("map_flags", cuMemMap(va + 4 * g, g, 0, one, 1));
  CODE("map_one", cuMemMap(va + 5 * g, g, 0, one, 0));
  CODE("free_while_mapped", cuMemAddressFree(va, 8 * g));
  CODE("access_over_hole", cuMemSetAccess(va, 6 * g, &acc, 1));
  CODE("access_get_after", cuMemGetAccess(&flags, &loc, va));
  OBS("access_get_after_value", "%llu", flags);
  CODE("access_part", cuMemSetAccess(va, g, &acc, 1));
  CODE("access_interior", cuMemSetAccess(va + g, g, &acc, 1));
  CODE("access_beyond", cuMemSetAccess(va + 5 * g, 2 * g, &acc, 1));
  CODE("access", cuMemSetAccess(va, 4 * g, &acc, 1));
  CODE("access_get_unmapped", cuMemGetAccess(&flags, &loc, va + 4 * g));
  CODE("unmap_head", cuMemUnmap(va, g));
  CODE("unmap_tail", cuMemUnmap(va + 3 * g, g));
  CODE("unmap_hole", cuMemUnmap(va + 6 * g, g));
  CODE("unmap_nothing", cuMemUnmap(va, 0));
  CODE("unmap_unaligned", cuMemUnmap(va, 4 * g + 1));
  CODE("unmap_cut_and_whole", cuMemUnmap(va + 3 * g, 3 * g));
  CODE("unmap_hole_and_whole", cuMemUnmap(va + 4 * g, 2 * g));
  CODE("unmap_that_again", cuMemUnmap(va + 5 * g, g));
  CODE("unmap_whole_and_hole", cuMemUnmap(va, 6 * g));
  CODE("unmap_all_gone", cuMemUnmap(va, 6 * g));
  cuMemRelease(four);
  cuMemRelease(one);
  YES("memory_back", free_bytes() == before);
  for (int i = 0; i < 4; i++) { cuMemCreate(&hs[i], g, &ap, 0); cuMemMap(va + i * g, g, 0, hs[i], 0); }
  CODE("access_across", cuMemSetAccess(va, 4 * g, &acc, 1));
  CODE("memset_across", cuMemsetD8_v2(va, 1, 4 * g));
  CODE("synchronize", cuCtxSynchronize());
  CODE("range", cuMemGetAddressRange_v2(&base, &n, va + g));
  OBS("range_value", "%zu %zu", (size_t)(base - va) / g, n / g);
  describe("pointer", va + g);
  CODE("unmap_middle_two", cuMemUnmap(va + g, 2 * g));
  CODE("unmap_over_hole", cuMemUnmap(va, 4 * g));
  CODE("unmap_first", cuMemUnmap(va, g));
  CODE("unmap_last", cuMemUnmap(va + 3 * g, g));
  for (int i = 0; i < 4; i++) cuMemMap(va + i * g, g, 0, hs[i], 0);
  CODE("unmap_from_before", cuMemUnmap(va - g, 5 * g));
  CODE("unmap_too_much", cuMemUnmap(va, 9 * g));
  CODE("unmap_too_much_again", cuMemUnmap(va, 9 * g));
  for (int i = 0; i < 4; i++) { cuMemUnmap(va + i * g, g); cuMemRelease(hs[i]); }
  YES("memory_back_again", free_bytes() == before);
  CODE("free_too_much", cuMemAddressFree(va, 9 * g));
  CODE("free_interior", cuMemAddressFree(va + g, 7 * g));
  CODE("free", cuMemAddressFree(va, 8 * g));
  CODE("access_freed", cuMemSetAccess(va, g, &acc, 1));
}

/* ---- sharing between processes ---- */

/* Runs this program again with the argument `what`; descriptor 20 is `fd`, and `data` goes to its
 * standard input. Its output appears in ours. */
static int child(const char *what, int fd, const void *data, size_t n) {
  int in[2];
  if (pipe(in)) return -1;
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    dup2(in[0], 0);
    close(in[1]);
    if (fd >= 0) dup2(fd, 20);
    execl("/proc/self/exe", "conformance", what, (char *)0);
    _exit(9);
  }
  close(in[0]);
  if (write(in[1], data, n) != (ssize_t)n) return -1;
  close(in[1]);
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void run_ipc(void) {
  begin();
  ptr a = alloc(4 * MiB), small = alloc(1000), async = 0, p = 0;
  Opaque h[2], again;
  cuMemsetD8_v2(a, 42, 4 * MiB);
  cuMemsetD8_v2(small, 43, 1000);
  CODE("get", cuIpcGetMemHandle(&h[0], a));
  CODE("get_interior", cuIpcGetMemHandle(&again, a + 4096));
  CODE("get_again", cuIpcGetMemHandle(&again, a));
  YES("same_handle", !memcmp(&again, &h[0], sizeof again));
  CODE("get_small", cuIpcGetMemHandle(&h[1], small));
  CODE("get_bad", cuIpcGetMemHandle(&again, 0x1000));
  cuMemAllocAsync(&async, 4096, 0);
  CODE("get_async", cuIpcGetMemHandle(&again, async));
  CODE("open_own", cuIpcOpenMemHandle_v2(&p, h[0], 1));
  CODE("open_bad_flags", cuIpcOpenMemHandle_v2(&p, h[0], 0));
  CODE("close_own_pointer", cuIpcCloseMemHandle(a));
  int ended = child("ipc-child", -1, h, sizeof h);
  OBS("child", "%d", ended);
  YES("child_wrote", holds(a, 77, 4 * MiB));
  CODE("free", cuMemFree_v2(a));
  CODE("free_small", cuMemFree_v2(small));
}

static void run_ipc_child(void) {
  section = "ipc";
  begin();
  Opaque h[2];
  if (read(0, h, sizeof h) != sizeof h) exit(4);
  ptr p = 0, q = 0, s = 0, base = 0;
  size_t n = 0;
  size_t before = free_bytes();
  CODE("child_open", cuIpcOpenMemHandle_v2(&p, h[0], 1));
  CODE("child_open_twice", cuIpcOpenMemHandle_v2(&q, h[0], 1));
  YES("child_same_address", p == q);
  CODE("child_open_small", cuIpcOpenMemHandle_v2(&s, h[1], 1));
  YES("child_sees", holds(p, 42, 4 * MiB));
  YES("child_sees_small", holds(s, 43, 1000));
  CODE("child_range", cuMemGetAddressRange_v2(&base, &n, p));
  YES("child_range_right", base == p && n == 4 * MiB);
  YES("child_not_charged", free_bytes() == before);
  CODE("child_free", cuMemFree_v2(p));
  CODE("child_memset", cuMemsetD8_v2(p, 77, 4 * MiB));
  cuCtxSynchronize();
  CODE("child_close", cuIpcCloseMemHandle(p));
  YES("child_alive_after_one_close", holds(p, 77, 16));
  CODE("child_close_twice", cuIpcCloseMemHandle(p));
  CODE("child_close_too_often", cuIpcCloseMemHandle(p));
  CODE("child_use_after_close", cuMemcpyDtoH_v2(&n, p, 8));
  CODE("child_close_small", cuIpcCloseMemHandle(s));
}

static void run_share(void) {
  begin();
  AllocProp ap = vmm_props(1);
  Access acc = {{1, device}, 3};
  size_t g = 0;
  ptr h = 0, va = 0, imp = 0;
  int fd = -1, fd2 = -1;
  cuMemGetAllocationGranularity(&g, &ap, 0);
  CODE("create", cuMemCreate(&h, g, &ap, 0));
  cuMemAddressReserve(&va, g, 0, 0, 0);
  cuMemMap(va, g, 0, h, 0);
  cuMemSetAccess(va, g, &acc, 1);
  cuMemsetD8_v2(va, 21, g);
  CODE("export", cuMemExportToShareableHandle(&fd, h, 1, 0));
  YES("export_is_descriptor", fd >= 0 && fcntl(fd, F_GETFD) >= 0);
  CODE("export_again", cuMemExportToShareableHandle(&fd2, h, 1, 0));
  YES("export_again_other_descriptor", fd2 != fd);
  CODE("export_bad_type", cuMemExportToShareableHandle(&fd2, h, 2, 0));
  size_t before = free_bytes();
  CODE("import_own", cuMemImportFromShareableHandle(&imp, (void *)(intptr_t)fd, 1));
  YES("import_own_same_handle", imp == h);
  YES("import_not_charged", free_bytes() == before);
  YES("descriptor_still_open", fcntl(fd, F_GETFD) >= 0);
  CODE("release_import", cuMemRelease(imp));
  CODE("import_bad", cuMemImportFromShareableHandle(&imp, (void *)(intptr_t)999, 1));
  int null_fd = open("/dev/null", O_RDWR);
  handle bad_pool = 0;
  CODE("import_other_file", cuMemImportFromShareableHandle(&imp, (void *)(intptr_t)null_fd, 1));
  CODE("pool_import_bad", cuMemPoolImportFromShareableHandle(&bad_pool, (void *)999, 1, 0));
  CODE("pool_import_other_file", cuMemPoolImportFromShareableHandle(&bad_pool, (void *)(intptr_t)null_fd, 1, 0));
  close(null_fd);
  int ended = child("share-child", fd, "", 1);
  OBS("child", "%d", ended);
  YES("child_wrote", holds(va, 22, g));
  cuMemUnmap(va, g);
  CODE("release", cuMemRelease(h));
  close(fd);

  PoolProps pp = pool_props(1);
  handle pool = 0;
  ptr p = 0;
  Opaque data;
  CODE("pool_create", cuMemPoolCreate(&pool, &pp));
  CODE("pool_alloc", cuMemAllocFromPoolAsync(&p, 1 * MiB, pool, 0));
  cuMemsetD8_v2(p, 31, 1 * MiB);
  cuCtxSynchronize();
  CODE("pool_export", cuMemPoolExportToShareableHandle(&fd, pool, 1, 0));
  CODE("pool_export_pointer", cuMemPoolExportPointer(&data, p));
  ended = child("pool-child", fd, &data, sizeof data);
  OBS("pool_child", "%d", ended);
  YES("pool_child_wrote", holds(p, 32, 1 * MiB));
  CODE("pool_free", cuMemFreeAsync(p, 0));
  CODE("pool_destroy", cuMemPoolDestroy(pool));
}

static void run_share_child(void) {
  section = "share";
  begin();
  AllocProp ap = vmm_props(1), got;
  Access acc = {{1, device}, 3};
  size_t g = 0;
  ptr h = 0, va = 0;
  cuMemGetAllocationGranularity(&g, &ap, 0);
  size_t before = free_bytes();
  CODE("child_import", cuMemImportFromShareableHandle(&h, (void *)20, 1));
  YES("child_not_charged", free_bytes() == before);
  CODE("child_properties", cuMemGetAllocationPropertiesFromHandle(&got, h));
  OBS("child_handle_types", "%d", got.handle_types);
  cuMemAddressReserve(&va, g, 0, 0, 0);
  CODE("child_map", cuMemMap(va, g, 0, h, 0));
  CODE("child_access", cuMemSetAccess(va, g, &acc, 1));
  CODE("child_release", cuMemRelease(h));
  YES("child_sees", holds(va, 21, g));
  cuMemsetD8_v2(va, 22, g);
  cuCtxSynchronize();
  CODE("child_unmap", cuMemUnmap(va, g));
}

static void run_pool_child(void) {
  section = "share";
  begin();
  handle pool = 0;
  ptr p = 0, q = 0;
  Opaque data;
  if (read(0, &data, sizeof data) != sizeof data) exit(4);
  CODE("pool_child_import", cuMemPoolImportFromShareableHandle(&pool, (void *)20, 1, 0));
  CODE("pool_child_pointer", cuMemPoolImportPointer(&p, pool, &data));
  CODE("pool_child_alloc_from", cuMemAllocFromPoolAsync(&q, 4096, pool, 0));
  YES("pool_child_sees", holds(p, 31, 1 * MiB));
  cuMemsetD8_v2(p, 32, 1 * MiB);
  cuCtxSynchronize();
  CODE("pool_child_free", cuMemFreeAsync(p, 0));
  CODE("pool_child_double_free", cuMemFreeAsync(p, 0));
  CODE("pool_child_destroy", cuMemPoolDestroy(pool));
}

static void run_external(void) {
  begin();
  AllocProp ap = vmm_props(1);
  size_t g = 0;
  ptr h = 0, p = 0;
  int fd = -1;
  handle ext = 0;
  cuMemGetAllocationGranularity(&g, &ap, 0);
  cuMemCreate(&h, g, &ap, 0);
  cuMemExportToShareableHandle(&fd, h, 1, 0);
  ExternalDesc d;
  memset(&d, 0, sizeof d);
  d.type = 1;
  d.handle.fd = 999;
  d.size = g;
  CODE("import_bad_descriptor", cuImportExternalMemory(&ext, &d));
  d.handle.fd = open("/dev/null", O_RDWR);
  CODE("import_other_file", cuImportExternalMemory(&ext, &d));
  close(d.handle.fd);
  d.handle.fd = fd;
  int r = cuImportExternalMemory(&ext, &d);
  CODE("import_of_exported_memory", r);
  if (r == 0) {
    BufferDesc b;
    memset(&b, 0, sizeof b);
    b.size = g;
    CODE("buffer", cuExternalMemoryGetMappedBuffer(&p, ext, &b));
    CODE("buffer_memset", cuMemsetD8_v2(p, 3, g));
    CODE("buffer_free", cuMemFree_v2(p));
    CODE("destroy", cuDestroyExternalMemory(ext));
  }
  CODE("release", cuMemRelease(h));
}

/* ---- streams and events ---- */

static int called;
static void host_function(void *p) { *(int *)p += 1; }

static void run_stream(void) {
  begin();
  handle s = 0, c = 0, e1 = 0, e2 = 0;
  unsigned flags = 9;
  unsigned long long id1 = 0, id2 = 0;
  float ms = -1;
  CODE("create", cuStreamCreate(&s, 1));
  CODE("create_bad_flags", cuStreamCreate(&c, 77));
  CODE("create_null", cuStreamCreate(0, 0));
  CODE("ctx", cuStreamGetCtx(s, &c));
  YES("ctx_right", c == ctx);
  CODE("ctx_of_null_stream", cuStreamGetCtx(0, &c));
  YES("ctx_of_null_stream_right", c == ctx);
  CODE("flags", cuStreamGetFlags(s, &flags));
  OBS("flags_value", "%u", flags);
  cuStreamGetId(s, &id1);
  cuStreamGetId(0, &id2);
  YES("ids_differ", id1 != id2);
  CODE("host_func", cuLaunchHostFunc(s, host_function, &called));
  CODE("synchronize", cuStreamSynchronize(s));
  OBS("host_func_calls", "%d", called);
  CODE("query", cuStreamQuery(s));
  CODE("synchronize_legacy", cuStreamSynchronize((handle)1));
  CODE("synchronize_per_thread", cuStreamSynchronize((handle)2));
  CODE("event", cuEventCreate(&e1, 0));
  CODE("event_bad_flags", cuEventCreate(&e2, 0x100));
  cuEventCreate(&e2, 0);
  CODE("event_query_unrecorded", cuEventQuery(e1));
  CODE("event_elapsed_unrecorded", cuEventElapsedTime(&ms, e1, e2));
  CODE("event_record", cuEventRecord(e1, s));
  CODE("event_record_second", cuEventRecord(e2, s));
  CODE("event_synchronize", cuEventSynchronize(e2));
  CODE("event_elapsed", cuEventElapsedTime(&ms, e1, e2));
  YES("event_elapsed_sane", ms >= 0 && ms < 10000);
  CODE("wait_event", cuStreamWaitEvent(s, e1, 0));
  CODE("event_destroy", cuEventDestroy_v2(e1));
  CODE("destroy", cuStreamDestroy_v2(s));
  CODE("destroy_null", cuStreamDestroy_v2(0));
}

/* ---- capture ---- */

static handle side_graph, side_alloc_node, side_exec, side_stream, side_pool, side_event;
static ptr side_linear, side_async, side_va, side_handle;
static void *side_host;
static size_t side_g;

/* `expr` during a capture of its own: its code, the state it leaves, and how the capture ends. */
#define DURING(mode, name, expr) \
  do { \
    handle s = stream(1), g = 0; \
    int status = 9; \
    cuStreamBeginCapture_v2(s, mode); \
    int r = (expr); \
    cuStreamIsCapturing(s, &status); \
    int e = cuStreamEndCapture(s, &g); \
    OBS(name, "%d status=%d end=%d graph=%s", r, status, e, g ? "yes" : "no"); \
    if (g) cuGraphDestroy(g); \
    cuStreamDestroy_v2(s); \
  } while (0)

static void capture_fixture(void) {
  begin();
  AllocNode n = alloc_node(4096);
  AllocProp ap = vmm_props(0);
  cuGraphCreate(&side_graph, 0);
  cuGraphAddMemAllocNode(&side_alloc_node, side_graph, 0, 0, &n);
  handle plain = 0, node = 0;
  cuGraphCreate(&plain, 0);
  cuGraphAddEmptyNode(&node, plain, 0, 0);
  cuGraphInstantiateWithFlags(&side_exec, plain, 0);
  side_stream = stream(1);
  cuDeviceGetDefaultMemPool(&side_pool, device);
  cuEventCreate(&side_event, 0);
  cuEventRecord(side_event, side_stream);
  side_linear = alloc(1 * MiB);
  cuMemAllocAsync(&side_async, 4096, side_stream);
  cuMemHostAlloc(&side_host, 4096, 0);
  cuMemGetAllocationGranularity(&side_g, &ap, 0);
  cuMemAddressReserve(&side_va, side_g, 0, 0, 0);
  cuMemCreate(&side_handle, side_g, &ap, 0);
  cuCtxSynchronize();
}

static void run_capture_queries(void) {
  capture_fixture();
  handle h;
  int i;
  unsigned u;
  uint64_t v[16];
  size_t n, t;
  ptr p;
  AllocNode an;
  unsigned long long id;
  DURING(GLOBAL, "nothing", 0);
  DURING(GLOBAL, "ctx_get_current", cuCtxGetCurrent(&h));
  DURING(GLOBAL, "ctx_get_device", cuCtxGetDevice(&i));
  DURING(GLOBAL, "ctx_get_flags", cuCtxGetFlags(&u));
  DURING(GLOBAL, "ctx_get_id", cuCtxGetId(ctx, &id));
  DURING(GLOBAL, "ctx_get_api_version", cuCtxGetApiVersion(ctx, &u));
  DURING(GLOBAL, "ctx_get_limit", cuCtxGetLimit(&n, 2));
  DURING(GLOBAL, "ctx_set_current", cuCtxSetCurrent(ctx));
  DURING(GLOBAL, "device_get_attribute", cuDeviceGetAttribute(&i, 16, device));
  DURING(GLOBAL, "device_total_mem", cuDeviceTotalMem_v2(&n, device));
  DURING(GLOBAL, "primary_get_state", cuDevicePrimaryCtxGetState(device, &u, &i));
  DURING(GLOBAL, "stream_get_ctx", cuStreamGetCtx(s, &h));
  DURING(GLOBAL, "stream_get_ctx_other", cuStreamGetCtx(side_stream, &h));
  DURING(GLOBAL, "stream_get_ctx_null", cuStreamGetCtx(0, &h));
  DURING(GLOBAL, "stream_get_flags", cuStreamGetFlags(s, &u));
  DURING(GLOBAL, "stream_get_id", cuStreamGetId(s, &id));
  DURING(GLOBAL, "stream_get_flags_other", cuStreamGetFlags(side_stream, &u));
  DURING(GLOBAL, "stream_get_flags_null", cuStreamGetFlags(0, &u));
  DURING(GLOBAL, "stream_get_id_other", cuStreamGetId(side_stream, &id));
  DURING(RELAXED, "relaxed_stream_get_flags", cuStreamGetFlags(s, &u));
  DURING(GLOBAL, "stream_is_capturing", cuStreamIsCapturing(s, &i));
  DURING(GLOBAL, "stream_is_capturing_other", cuStreamIsCapturing(side_stream, &i));
  DURING(GLOBAL, "stream_is_capturing_null", cuStreamIsCapturing(0, &i));
  DURING(GLOBAL, "stream_get_capture_info",
         cuStreamGetCaptureInfo_v2(s, &i, v, &h, (const handle **)&v[2], &n));
  DURING(GLOBAL, "pointer_context", cuPointerGetAttribute(v, 1, side_linear));
  DURING(GLOBAL, "pointer_type", cuPointerGetAttribute(v, 2, side_linear));
  DURING(GLOBAL, "pointer_device", cuPointerGetAttribute(v, 9, side_linear));
  DURING(GLOBAL, "pointer_range_size", cuPointerGetAttribute(v, 12, side_linear));
  DURING(GLOBAL, "pointer_pool", cuPointerGetAttribute(v, 17, side_async));
  DURING(GLOBAL, "pointer_bad", cuPointerGetAttribute(v, 2, 0x1000));
  DURING(GLOBAL, "mem_get_info", cuMemGetInfo_v2(&n, &t));
  DURING(GLOBAL, "mem_get_address_range", cuMemGetAddressRange_v2(&p, &n, side_linear));
  DURING(GLOBAL, "mem_get_address_range_of_captured",
         (cuMemAllocAsync(&p, 4096, s), cuMemGetAddressRange_v2(&p, &n, p)));
  DURING(GLOBAL, "pointer_of_captured",
         (cuMemAllocAsync(&p, 4096, s), cuPointerGetAttribute(v, 2, p)));
  DURING(GLOBAL, "host_get_flags", cuMemHostGetFlags(&u, side_host));
  DURING(GLOBAL, "host_get_device_pointer", cuMemHostGetDevicePointer_v2(&p, side_host, 0));
  DURING(GLOBAL, "graph_get_nodes", (n = 0, cuGraphGetNodes(side_graph, 0, &n)));
  DURING(GLOBAL, "graph_node_get_type", cuGraphNodeGetType(side_alloc_node, &i));
  DURING(GLOBAL, "graph_alloc_node_get_params", cuGraphMemAllocNodeGetParams(side_alloc_node, &an));
  DURING(GLOBAL, "graph_get_nodes_of_capture",
         (cuStreamGetCaptureInfo_v2(s, &i, v, &h, 0, 0), n = 0, cuGraphGetNodes(h, 0, &n)));
  DURING(GLOBAL, "default_pool", cuDeviceGetDefaultMemPool(&h, device));
  DURING(GLOBAL, "current_pool", cuDeviceGetMemPool(&h, device));
  DURING(GLOBAL, "pool_get_attribute", cuMemPoolGetAttribute(side_pool, 5, v));
  DURING(GLOBAL, "pool_get_access", cuMemPoolGetAccess(&i, side_pool, &(Location){1, device}));
  DURING(GLOBAL, "graph_mem_attribute", cuDeviceGetGraphMemAttribute(device, 0, v));
  DURING(GLOBAL, "granularity",
         (cuMemGetAllocationGranularity(&n, &(AllocProp){.type = 1, .location = {1, device}}, 0)));
  DURING(GLOBAL, "vmm_properties",
         cuMemGetAllocationPropertiesFromHandle((AllocProp *)v, side_handle));
  DURING(GLOBAL, "get_proc_address", cuGetProcAddress_v2("cuMemAlloc", (void **)&h, 12000, 0, &i));
  DURING(GLOBAL, "exchange_mode", (i = GLOBAL, cuThreadExchangeStreamCaptureMode(&i)));
}

static void run_capture_calls(void) {
  capture_fixture();
  handle h = 0;
  int i;
  uint64_t v[16] = {0};
  ptr p = 0;
  void *q;
  Opaque o;
  static char buf[4096];
  Access acc = {{1, device}, 3};
  AllocProp ap = vmm_props(0);
  PoolProps pp = pool_props(0);
  Array3D d3 = {16, 16, 0, 0x20, 1, 0};
  DURING(GLOBAL, "alloc", cuMemAlloc_v2(&p, 4096));
  DURING(GLOBAL, "alloc_pitch", cuMemAllocPitch_v2(&p, (size_t *)v, 64, 4, 4));
  DURING(GLOBAL, "alloc_managed", cuMemAllocManaged(&p, 4096, 1));
  DURING(GLOBAL, "host_alloc", cuMemHostAlloc(&q, 4096, 0));
  DURING(GLOBAL, "host_register", cuMemHostRegister_v2(buf, 4096, 0));
  cuMemHostUnregister(buf);
  DURING(GLOBAL, "free_null", cuMemFree_v2(0));
  DURING(GLOBAL, "free", (p = side_linear, cuMemFree_v2(p)));
  cuMemFree_v2(side_linear);
  side_linear = alloc(1 * MiB);
  DURING(GLOBAL, "free_bad", cuMemFree_v2(0x1000));
  DURING(GLOBAL, "free_host_null", cuMemFreeHost(0));
  DURING(GLOBAL, "array_create", cuArray3DCreate_v2(&h, &d3));
  DURING(GLOBAL, "mem_create", cuMemCreate(&p, side_g, &ap, 0));
  DURING(GLOBAL, "address_reserve", cuMemAddressReserve(&p, side_g, 0, 0, 0));
  DURING(GLOBAL, "map", cuMemMap(side_va, side_g, 0, side_handle, 0));
  cuMemUnmap(side_va, side_g);
  cuMemMap(side_va, side_g, 0, side_handle, 0);
  DURING(GLOBAL, "set_access", cuMemSetAccess(side_va, side_g, &acc, 1));
  DURING(GLOBAL, "retain_handle", cuMemRetainAllocationHandle(&p, (void *)(uintptr_t)side_va));
  DURING(GLOBAL, "unmap", cuMemUnmap(side_va, side_g));
  ptr extra = 0;
  cuMemCreate(&extra, side_g, &ap, 0);
  DURING(GLOBAL, "release", cuMemRelease(extra));
  CODE("release_afterwards", cuMemRelease(extra));
  DURING(GLOBAL, "ipc_get", cuIpcGetMemHandle(&o, side_linear));
  DURING(GLOBAL, "ipc_open_bad", cuIpcOpenMemHandle_v2(&p, (Opaque){{0}}, 1));
  DURING(GLOBAL, "export_unshareable", cuMemExportToShareableHandle(&i, side_handle, 1, 0));
  DURING(GLOBAL, "import_external_bad",
         cuImportExternalMemory(&h, &(ExternalDesc){.type = 1, .handle.fd = 999, .size = 4096}));
  DURING(GLOBAL, "free_host", cuMemFreeHost(side_host));
  DURING(GLOBAL, "host_unregister_bad", cuMemHostUnregister(buf));
  DURING(GLOBAL, "array_destroy_null", cuArrayDestroy(0));
  DURING(GLOBAL, "module_load", cuModuleLoadData(&h, ptx));
  DURING(GLOBAL, "pool_create", cuMemPoolCreate(&h, &pp));
  DURING(GLOBAL, "pool_set_attribute", cuMemPoolSetAttribute(side_pool, 4, v));
  DURING(GLOBAL, "pool_trim", cuMemPoolTrimTo(side_pool, 0));
  DURING(GLOBAL, "pool_destroy_default", cuMemPoolDestroy(side_pool));
  DURING(GLOBAL, "pool_export", cuMemPoolExportToShareableHandle(&i, side_pool, 1, 0));
  DURING(GLOBAL, "device_set_pool", cuDeviceSetMemPool(device, side_pool));
  DURING(GLOBAL, "graph_trim", cuDeviceGraphMemTrim(device));
  DURING(GLOBAL, "stream_create", cuStreamCreate(&h, 1));
  DURING(GLOBAL, "event_create", cuEventCreate(&h, 0));
  DURING(GLOBAL, "event_query_other", cuEventQuery(side_event));
  DURING(GLOBAL, "event_synchronize_other", cuEventSynchronize(side_event));
  DURING(GLOBAL, "synchronize_self", cuStreamSynchronize(s));
  DURING(GLOBAL, "query_self", cuStreamQuery(s));
  DURING(GLOBAL, "synchronize_other", cuStreamSynchronize(side_stream));
  DURING(GLOBAL, "query_other", cuStreamQuery(side_stream));
  DURING(GLOBAL, "synchronize_null", cuStreamSynchronize(0));
  DURING(GLOBAL, "ctx_synchronize", cuCtxSynchronize());
  DURING(GLOBAL, "copy_sync", cuMemcpyHtoD_v2(side_linear, buf, 64));
  DURING(GLOBAL, "copy_sync_back", cuMemcpyDtoH_v2(buf, side_linear, 64));
  DURING(GLOBAL, "copy_sync_device", cuMemcpyDtoD_v2(side_linear, side_linear + 4096, 64));
  DURING(GLOBAL, "copy_async_self", cuMemcpyHtoDAsync_v2(side_linear, buf, 64, s));
  DURING(GLOBAL, "copy_async_other", cuMemcpyHtoDAsync_v2(side_linear, buf, 64, side_stream));
  DURING(GLOBAL, "copy_async_null", cuMemcpyHtoDAsync_v2(side_linear, buf, 64, 0));
  DURING(GLOBAL, "memset_sync", cuMemsetD8_v2(side_linear, 0, 64));
  DURING(GLOBAL, "memset_async_self", cuMemsetD8Async(side_linear, 0, 64, s));
  DURING(GLOBAL, "alloc_async_self", cuMemAllocAsync(&p, 4096, s));
  DURING(GLOBAL, "alloc_async_zero", cuMemAllocAsync(&p, 0, s));
  DURING(GLOBAL, "alloc_async_other", cuMemAllocAsync(&p, 4096, side_stream));
  cuMemFreeAsync(p, side_stream);
  DURING(GLOBAL, "alloc_async_null", cuMemAllocAsync(&p, 4096, 0));
  DURING(GLOBAL, "alloc_async_zero_other", cuMemAllocAsync(&p, 0, side_stream));
  DURING(GLOBAL, "alloc_async_huge", cuMemAllocAsync(&p, (size_t)1 << 50, s));
  DURING(GLOBAL, "alloc_from_pool_self", cuMemAllocFromPoolAsync(&p, 4096, side_pool, s));
  DURING(GLOBAL, "alloc_from_pool_other", cuMemAllocFromPoolAsync(&p, 4096, side_pool, side_stream));
  DURING(GLOBAL, "free_async_other", cuMemFreeAsync(side_async, side_stream));
  DURING(GLOBAL, "free_async_null_other", cuMemFreeAsync(0, side_stream));
  DURING(GLOBAL, "free_async_twice",
         (cuMemAllocAsync(&p, 4096, s), cuMemFreeAsync(p, s), cuMemFreeAsync(p, s)));
  DURING(GLOBAL, "free_async_of_live", cuMemFreeAsync(side_async, s));
  DURING(GLOBAL, "free_async_of_linear", cuMemFreeAsync(side_linear, s));
  DURING(GLOBAL, "free_async_null", cuMemFreeAsync(0, s));
  DURING(GLOBAL, "alloc_and_free", (cuMemAllocAsync(&p, 4096, s), cuMemFreeAsync(p, s)));
  DURING(GLOBAL, "alloc_then_sync_free", (cuMemAllocAsync(&p, 4096, s), cuMemFree_v2(p)));
  DURING(GLOBAL, "host_func", cuLaunchHostFunc(s, host_function, &called));
  DURING(GLOBAL, "graph_launch_other", cuGraphLaunch(side_exec, side_stream));
  DURING(GLOBAL, "graph_launch_self", cuGraphLaunch(side_exec, s));
  DURING(GLOBAL, "instantiate", (h = 0, cuGraphInstantiateWithFlags(&h, side_graph, 0)));
  if (h) cuGraphExecDestroy(h);
  DURING(GLOBAL, "exec_destroy", cuGraphExecDestroy(side_exec));
  DURING(GLOBAL, "upload_self", cuGraphUpload(side_exec, s));
  DURING(GLOBAL, "set_graph_high", (v[0] = 0, cuDeviceSetGraphMemAttribute(device, 1, v)));
  DURING(GLOBAL, "begin_again", cuStreamBeginCapture_v2(s, GLOBAL));
  DURING(GLOBAL, "ctx_set_limit", cuCtxSetLimit(2, 8 << 20));
  DURING(GLOBAL, "primary_retain", cuDevicePrimaryCtxRetain(&h, device));
  cuDevicePrimaryCtxRelease_v2(device);
  DURING(GLOBAL, "ctx_create", cuCtxCreate_v2(&h, 0, device));
  cuCtxDestroy_v2(h);
  DURING(RELAXED, "relaxed_graph_launch_self", cuGraphLaunch(side_exec, s));
  DURING(RELAXED, "relaxed_event_query_other", cuEventQuery(side_event));
  DURING(RELAXED, "relaxed_synchronize_other", cuStreamSynchronize(side_stream));
  DURING(RELAXED, "relaxed_alloc_async_other", (p = 0, cuMemAllocAsync(&p, 4096, side_stream)));
  cuMemFreeAsync(p, side_stream);
  DURING(RELAXED, "relaxed_alloc", cuMemAlloc_v2(&p, 4096));
  cuMemFree_v2(p);
  DURING(RELAXED, "relaxed_pool_attribute", cuMemPoolGetAttribute(side_pool, 5, v));
  DURING(RELAXED, "relaxed_synchronize_self", cuStreamSynchronize(s));
  DURING(RELAXED, "relaxed_ctx_synchronize", cuCtxSynchronize());
  DURING(THREAD, "thread_alloc", cuMemAlloc_v2(&p, 4096));
  i = RELAXED;
  cuThreadExchangeStreamCaptureMode(&i);
  DURING(GLOBAL, "global_alloc_in_relaxed_thread", (p = 0, cuMemAlloc_v2(&p, 4096)));
  if (p) cuMemFree_v2(p);
  DURING(GLOBAL, "global_pool_attribute_in_relaxed_thread", cuMemPoolGetAttribute(side_pool, 5, v));
  i = GLOBAL;
  cuThreadExchangeStreamCaptureMode(&i);
  OBS("mode_was", "%d", i);
  i = 77;
  CODE("mode_bad", cuThreadExchangeStreamCaptureMode(&i));
  DURING(GLOBAL, "alloc_in_bad_mode", cuMemAlloc_v2(&p, 4096));
  i = GLOBAL;
  cuThreadExchangeStreamCaptureMode(&i);
  OBS("mode_bad_was", "%d", i);
  CODE("begin_on_null", cuStreamBeginCapture_v2(0, GLOBAL));
  CODE("begin_on_legacy", cuStreamBeginCapture_v2((handle)1, GLOBAL));
  CODE("begin_bad_mode", cuStreamBeginCapture_v2(side_stream, 9));
  CODE("end_without_begin", cuStreamEndCapture(side_stream, &h));
}

static int thread_mode;
static void *other_thread(void *out) {
  int r[2];
  ptr p = 0;
  cuCtxSetCurrent(ctx);
  int mode = thread_mode;
  cuThreadExchangeStreamCaptureMode(&mode);
  r[0] = cuMemAlloc_v2(&p, 4096);
  if (p) {
    int relaxed = RELAXED;
    cuThreadExchangeStreamCaptureMode(&relaxed);
    cuMemFree_v2(p);
  }
  r[1] = 0;
  memcpy(out, r, sizeof r);
  return 0;
}
static int elsewhere(int mode) {
  int r[2];
  pthread_t t;
  thread_mode = mode;
  pthread_create(&t, 0, other_thread, r);
  pthread_join(t, 0);
  return r[0];
}
static handle end_stream;
static void *end_elsewhere(void *out) {
  handle g = 0;
  cuCtxSetCurrent(ctx);
  *(int *)out = cuStreamEndCapture(end_stream, &g);
  return 0;
}
static int end_in_other_thread(handle s) {
  int r = -1;
  pthread_t t;
  end_stream = s;
  pthread_create(&t, 0, end_elsewhere, &r);
  pthread_join(t, 0);
  return r;
}

static void run_capture_threads(void) {
  capture_fixture();
  DURING(GLOBAL, "global_global", elsewhere(GLOBAL));
  DURING(GLOBAL, "global_thread", elsewhere(THREAD));
  DURING(GLOBAL, "global_relaxed", elsewhere(RELAXED));
  DURING(THREAD, "thread_global", elsewhere(GLOBAL));
  DURING(THREAD, "thread_thread", elsewhere(THREAD));
  DURING(THREAD, "thread_relaxed", elsewhere(RELAXED));
  DURING(RELAXED, "relaxed_global", elsewhere(GLOBAL));
  DURING(GLOBAL, "end_elsewhere_global", end_in_other_thread(s));
  DURING(RELAXED, "end_elsewhere_relaxed", end_in_other_thread(s));
  /* A blocking stream, and the legacy stream meanwhile. */
  handle s = stream(0), g = 0;
  int status = 9, i;
  size_t n = 0, t = 0;
  static char buf[64];
  cuStreamBeginCapture_v2(s, RELAXED);
  CODE("blocking_copy_null", cuMemcpyHtoDAsync_v2(side_linear, buf, 64, 0));
  cuStreamIsCapturing(s, &status);
  OBS("blocking_status", "%d", status);
  CODE("blocking_end", cuStreamEndCapture(s, &g));
  cuStreamBeginCapture_v2(s, GLOBAL);
  CODE("blocking_is_capturing_null", cuStreamIsCapturing(0, &i));
  CODE("blocking_is_capturing_null_end", cuStreamEndCapture(s, &g));
  cuStreamBeginCapture_v2(s, GLOBAL);
  CODE("blocking_mem_get_info", cuMemGetInfo_v2(&n, &t));
  CODE("blocking_mem_get_info_end", cuStreamEndCapture(s, &g));
  cuStreamBeginCapture_v2(s, GLOBAL);
  handle c;
  CODE("blocking_stream_get_ctx_null", cuStreamGetCtx(0, &c));
  CODE("blocking_stream_get_ctx_null_end", cuStreamEndCapture(s, &g));
#define BLOCKING(name, expr) \
  do { \
    cuStreamBeginCapture_v2(s, GLOBAL); \
    int r = (expr); \
    status = 9; \
    cuStreamIsCapturing(s, &status); \
    int end = cuStreamEndCapture(s, &g); \
    OBS("blocking_" name, "%d status=%d end=%d", r, status, end); \
  } while (0)
  unsigned u;
  unsigned long long id;
  ptr p = 0;
  BLOCKING("get_flags_null", cuStreamGetFlags(0, &u));
  BLOCKING("get_id_null", cuStreamGetId(0, &id));
  BLOCKING("get_ctx_other", cuStreamGetCtx(side_stream, &c));
  BLOCKING("get_ctx_per_thread", cuStreamGetCtx((handle)2, &c));
  BLOCKING("synchronize_null", cuStreamSynchronize(0));
  BLOCKING("query_null", cuStreamQuery(0));
  BLOCKING("wait_event_null", cuStreamWaitEvent(0, side_event, 0));
  BLOCKING("record_null", cuEventRecord(side_event, 0));
  BLOCKING("alloc_async_null", cuMemAllocAsync(&p, 16, 0));
  BLOCKING("free_async_null_null", cuMemFreeAsync(0, 0));
  BLOCKING("copy_sync", cuMemcpyHtoD_v2(side_linear, buf, 64));
  BLOCKING("graph_launch_null", cuGraphLaunch(side_exec, 0));
  BLOCKING("alloc", cuMemAlloc_v2(&p, 16));
  cuEventRecord(side_event, side_stream);
  /* Fork and join. */
  handle a = stream(1), b = stream(1), e = 0, e2 = 0;
  cuEventCreate(&e, 0);
  cuEventCreate(&e2, 0);
  cuStreamBeginCapture_v2(a, GLOBAL);
  CODE("fork_record", cuEventRecord(e, a));
  CODE("fork_wait", cuStreamWaitEvent(b, e, 0));
  cuStreamIsCapturing(b, &status);
  OBS("fork_status", "%d", status);
  CODE("fork_memset", cuMemsetD8Async(side_linear, 1, 64, b));
  CODE("fork_end_wrong_stream", cuStreamEndCapture(b, &g));
  cuStreamIsCapturing(a, &status);
  OBS("fork_status_after", "%d", status);
  CODE("fork_end", cuStreamEndCapture(a, &g));
  cuStreamBeginCapture_v2(a, GLOBAL);
  cuEventRecord(e, a);
  cuStreamWaitEvent(b, e, 0);
  cuMemsetD8Async(side_linear, 1, 64, b);
  CODE("unjoined_end", cuStreamEndCapture(a, &g));
  cuStreamBeginCapture_v2(a, GLOBAL);
  cuEventRecord(e, a);
  cuStreamWaitEvent(b, e, 0);
  cuMemsetD8Async(side_linear, 1, 64, b);
  cuEventRecord(e2, b);
  CODE("join_wait", cuStreamWaitEvent(a, e2, 0));
  CODE("event_query_captured", cuEventQuery(e2));
  CODE("event_query_captured_end", cuStreamEndCapture(a, &g));
  cuStreamBeginCapture_v2(a, GLOBAL);
  cuEventRecord(e, a);
  cuStreamWaitEvent(b, e, 0);
  cuMemsetD8Async(side_linear, 1, 64, b);
  cuEventRecord(e2, b);
  cuStreamWaitEvent(a, e2, 0);
  CODE("joined_end", cuStreamEndCapture(a, &g));
  n = 0;
  cuGraphGetNodes(g, 0, &n);
  OBS("joined_nodes", "%zu", n);
  cuGraphDestroy(g);
  cuStreamBeginCapture_v2(a, GLOBAL);
  CODE("wait_on_outside_event", cuStreamWaitEvent(a, side_event, 0));
  CODE("wait_on_outside_event_end", cuStreamEndCapture(a, &g));
  cuStreamBeginCapture_v2(a, GLOBAL);
  CODE("destroy_capturing_stream", cuStreamDestroy_v2(a));
  CODE("alloc_afterwards", cuMemAlloc_v2(&side_linear, 64));
}

/* ---- graphs ---- */

static void run_graph(void) {
  begin();
  handle s = stream(1), g = 0, clone = 0, node = 0, child = 0, cnode = 0, body = 0, x = 0, x2 = 0, n2 = 0;
  ptr a = alloc(4096);
  MemsetNode m = {a, 0, 9, 1, 4096, 1};
  size_t n = 0;
  int type = -1;
  UpdateInfo info;
  CODE("create", cuGraphCreate(&g, 0));
  CODE("create_bad_flags", cuGraphCreate(&x, 1));
  CODE("empty", cuGraphAddEmptyNode(&node, g, 0, 0));
  CODE("memset", cuGraphAddMemsetNode(&n2, g, &node, 1, &m, ctx));
  CODE("nodes", cuGraphGetNodes(g, 0, &n));
  OBS("nodes_count", "%zu", n);
  CODE("roots", (n = 0, cuGraphGetRootNodes(g, 0, &n)));
  OBS("roots_count", "%zu", n);
  handle list[8] = {0};
  n = 8;
  CODE("nodes_larger_array", cuGraphGetNodes(g, list, &n));
  OBS("nodes_larger_array_count", "%zu", n);
  YES("nodes_rest_null", list[2] == 0 && list[7] == 0);
  n = 1;
  CODE("nodes_smaller_array", cuGraphGetNodes(g, list, &n));
  OBS("nodes_smaller_array_count", "%zu", n);
  CODE("type", cuGraphNodeGetType(n2, &type));
  OBS("type_value", "%d", type);
  CODE("clone", cuGraphClone(&clone, g));
  CODE("child", (cuGraphCreate(&child, 0), cuGraphAddChildGraphNode(&cnode, child, 0, 0, g)));
  CODE("child_graph", cuGraphChildGraphNodeGetGraph(cnode, &body));
  YES("child_is_copy", body != g);
  CODE("instantiate", cuGraphInstantiateWithFlags(&x, g, 0));
  CODE("instantiate_again", cuGraphInstantiateWithFlags(&x2, g, 0));
  CODE("instantiate_bad_flags", cuGraphInstantiateWithFlags(&body, g, 1ull << 40));
  CODE("upload", cuGraphUpload(x, s));
  CODE("launch", cuGraphLaunch(x, s));
  CODE("launch_again", cuGraphLaunch(x, s));
  cuStreamSynchronize(s);
  YES("launch_wrote", holds(a, 9, 4096));
  CODE("update_same", cuGraphExecUpdate_v2(x, clone, &info));
  OBS("update_same_result", "%d", info.result);
  CODE("update_other", cuGraphExecUpdate_v2(x, child, &info));
  OBS("update_other_result", "%d", info.result);
  CODE("destroy_node", cuGraphDestroyNode(n2));
  CODE("destroy_graph_before_exec", cuGraphDestroy(g));
  CODE("launch_after_graph_destroy", cuGraphLaunch(x, s));
  cuStreamSynchronize(s);
  CODE("exec_destroy", cuGraphExecDestroy(x));
  CODE("exec_destroy_second", cuGraphExecDestroy(x2));
  CODE("child_exec", cuGraphInstantiateWithFlags(&x, child, 0));
  cuMemsetD8_v2(a, 0, 4096);
  CODE("child_launch", cuGraphLaunch(x, s));
  cuStreamSynchronize(s);
  YES("child_wrote", holds(a, 9, 4096));
  CODE("destroy_child_parent", cuGraphDestroy(child));
  CODE("destroy_clone", cuGraphDestroy(clone));
  CODE("capture_to_graph",
       (cuGraphCreate(&g, 0), cuGraphAddEmptyNode(&node, g, 0, 0),
        cuStreamBeginCaptureToGraph(s, g, &node, 0, 1, GLOBAL)));
  cuMemsetD8Async(a, 1, 64, s);
  CODE("capture_to_graph_end", cuStreamEndCapture(s, &body));
  YES("capture_to_graph_same", body == g);
  n = 0;
  cuGraphGetNodes(g, 0, &n);
  OBS("capture_to_graph_nodes", "%zu", n);
}

/* A graph captured from alloc, memset and, if asked, free. */
static handle captured(handle s, size_t bytes, int with_free, ptr *p) {
  handle g = 0;
  cuStreamBeginCapture_v2(s, GLOBAL);
  cuMemAllocAsync(p, bytes, s);
  cuMemsetD8Async(*p, 8, bytes, s);
  if (with_free) cuMemFreeAsync(*p, s);
  cuStreamEndCapture(s, &g);
  return g;
}

static void run_graph_memory(void) {
  begin();
  handle s = stream(1), g, x = 0, x2 = 0, nodes[8], c = 0, node = 0, parent = 0, fg = 0, fx = 0;
  ptr p = 0, q = 0, base = 0;
  size_t n = 8, len = 0;
  int types[3] = {-1, -1, -1};
  AllocNode an;
  UpdateInfo info;
  cuDeviceGraphMemTrim(device);
  size_t before = free_bytes();
  g = captured(s, 8 * MiB, 1, &p);
  YES("capture_gave_address", p != 0);
  cuGraphGetNodes(g, nodes, &n);
  OBS("captured_nodes", "%zu", n);
  for (int i = 0; i < 3; i++) cuGraphNodeGetType(nodes[i], &types[i]);
  OBS("captured_types_sum", "%d", types[0] + types[1] + types[2]);
  for (int i = 0; i < 3; i++) {
    if (types[i] == 10) {
      CODE("alloc_params", cuGraphMemAllocNodeGetParams(nodes[i], &an));
      YES("alloc_params_address", an.dptr == p);
      OBS("alloc_params_mib", "%zu", an.bytes / MiB);
      CODE("free_params_of_alloc", cuGraphMemFreeNodeGetParams(nodes[i], &q));
    }
    if (types[i] == 11) {
      CODE("free_params", cuGraphMemFreeNodeGetParams(nodes[i], &q));
      YES("free_params_address", q == p);
    }
  }
  YES("nothing_charged_by_capture", free_bytes() == before);
  CODE("address_dead_before_launch", cuMemGetAddressRange_v2(&base, &len, p));
  CODE("free_before_launch", cuMemFree_v2(p));
  CODE("clone", cuGraphClone(&c, g));
  CODE("child", (cuGraphCreate(&parent, 0), cuGraphAddChildGraphNode(&node, parent, 0, 0, g)));
  CODE("destroy_node", cuGraphDestroyNode(nodes[0]));
  CODE("instantiate", cuGraphInstantiateWithFlags(&x, g, 0));
  size_t instantiated = free_bytes();
  YES("nothing_charged_by_instantiate", instantiated == before);
  CODE("instantiate_twice", cuGraphInstantiateWithFlags(&x2, g, 0));
  CODE("launch", cuGraphLaunch(x, s));
  CODE("launch_again", cuGraphLaunch(x, s));
  cuStreamSynchronize(s);
  YES("pool_holds_after_free", free_bytes() < before);
  OBS("used_after_free_mib", "%llu", (unsigned long long)graph_attr(0) / MiB);
  YES("used_high", graph_attr(1) >= 8 * MiB);
  YES("reserved", graph_attr(2) >= 8 * MiB);
  CODE("trim", cuDeviceGraphMemTrim(device));
  YES("trimmed", graph_attr(2) == 0);
  YES("trim_gave_back", free_bytes() == before);
  YES("trim_gave_back_what_launches_took", free_bytes() == instantiated);
  uint64_t zero = 0;
  CODE("reset_high", cuDeviceSetGraphMemAttribute(device, 1, &zero));
  OBS("high_after_reset", "%llu", (unsigned long long)graph_attr(1));
  CODE("set_used", cuDeviceSetGraphMemAttribute(device, 0, &zero));
  CODE("exec_destroy", cuGraphExecDestroy(x));
  CODE("instantiate_after_destroy", cuGraphInstantiateWithFlags(&x, g, 0));
  handle like = captured(s, 8 * MiB, 1, &q);
  CODE("update_like_graph", (memset(&info, 0, sizeof info), cuGraphExecUpdate_v2(x, like, &info)));
  OBS("update_like_graph_result", "%d", info.result);
  cuGraphDestroy(like);
  CODE("update_memory_graph", (memset(&info, 0, sizeof info), cuGraphExecUpdate_v2(x, g, &info)));
  OBS("update_memory_graph_result", "%d", info.result);
  cuGraphExecDestroy(x);
  CODE("destroy", cuGraphDestroy(g));

  /* Without a free in the graph: live after the launch. */
  g = captured(s, 8 * MiB, 0, &p);
  CODE("open_instantiate", cuGraphInstantiateWithFlags(&x, g, 0));
  CODE("open_launch", cuGraphLaunch(x, s));
  cuStreamSynchronize(s);
  YES("open_holds", holds(p, 8, 8 * MiB));
  CODE("open_range", cuMemGetAddressRange_v2(&base, &len, p + 5));
  YES("open_range_right", base == p && len == 8 * MiB);
  OBS("open_used_mib", "%llu", (unsigned long long)graph_attr(0) / MiB);
  describe("open_pointer", p);
  handle of = (handle)1;
  CODE("open_pool", cuPointerGetAttribute(&of, 17, p));
  CODE("open_relaunch", cuGraphLaunch(x, s));
  CODE("open_free", cuMemFreeAsync(p, s));
  CODE("open_double_free", cuMemFreeAsync(p, s));
  cuStreamSynchronize(s);
  CODE("open_launch_after_free", cuGraphLaunch(x, s));
  cuStreamSynchronize(s);
  CODE("open_sync_free", cuMemFree_v2(p));
  cuGraphLaunch(x, s);
  cuStreamSynchronize(s);
  /* Freed by another graph. */
  CODE("free_graph", (cuGraphCreate(&fg, 0), cuGraphAddMemFreeNode(&node, fg, 0, 0, p)));
  CODE("free_graph_bad", cuGraphAddMemFreeNode(&node, fg, 0, 0, 0x1000));
  CODE("free_graph_instantiate", cuGraphInstantiateWithFlags(&fx, fg, 0));
  CODE("free_graph_launch", cuGraphLaunch(fx, s));
  CODE("free_graph_synchronize", cuStreamSynchronize(s));
  CODE("freed_by_graph", cuMemFree_v2(p));
  /* Exec destroyed while its allocation is live. */
  cuGraphLaunch(x, s);
  cuStreamSynchronize(s);
  CODE("exec_destroy_while_live", cuGraphExecDestroy(x));
  YES("live_after_exec_destroy", holds(p, 8, 16));
  CODE("destroy_while_live", cuGraphDestroy(g));
  YES("live_after_graph_destroy", holds(p, 8, 16));
  CODE("free_after_all", cuMemFree_v2(p));
  cuGraphExecDestroy(fx);
  cuGraphDestroy(fg);

  /* AUTO_FREE_ON_LAUNCH. */
  g = captured(s, 8 * MiB, 0, &p);
  CODE("auto_instantiate", cuGraphInstantiateWithFlags(&x, g, 1));
  CODE("auto_launch", cuGraphLaunch(x, s));
  CODE("auto_relaunch", cuGraphLaunch(x, s));
  cuStreamSynchronize(s);
  OBS("auto_used_mib", "%llu", (unsigned long long)graph_attr(0) / MiB);
  CODE("auto_free", cuMemFree_v2(p));
  cuGraphExecDestroy(x);
  cuGraphDestroy(g);

  /* Nodes by hand. */
  NodeParams np;
  memset(&np, 0, sizeof np);
  np.type = 10;
  np.u.alloc = alloc_node(1 * MiB);
  CODE("add_node", (cuGraphCreate(&g, 0), cuGraphAddNode_v2(&node, g, 0, 0, 0, &np)));
  YES("add_node_address", np.u.alloc.dptr != 0);
  an = alloc_node(0);
  CODE("add_zero_bytes", cuGraphAddMemAllocNode(&c, g, 0, 0, &an));
  an = alloc_node(1 * MiB);
  CODE("add_alloc", cuGraphAddMemAllocNode(&c, g, &node, 1, &an));
  YES("add_alloc_other_address", an.dptr != np.u.alloc.dptr);
  CODE("add_free", cuGraphAddMemFreeNode(&node, g, &c, 1, an.dptr));
  CODE("add_free_twice", cuGraphAddMemFreeNode(&node, g, &c, 1, an.dptr));
  cuGraphCreate(&fg, 0);
  CODE("add_free_in_other", cuGraphAddMemFreeNode(&node, fg, 0, 0, an.dptr));
  cuGraphDestroy(fg);
  cuGraphDestroy(g);
  /* A memory graph moved into a parent. */
  g = captured(s, 1 * MiB, 1, &p);
  memset(&np, 0, sizeof np);
  np.type = 4;
  np.u.child.graph = g;
  np.u.child.ownership = 1;
  CODE("move_child", cuGraphAddNode_v2(&node, parent, 0, 0, 0, &np));
  CODE("move_instantiate", cuGraphInstantiateWithFlags(&x, parent, 0));
  CODE("move_launch", cuGraphLaunch(x, s));
  CODE("move_synchronize", cuStreamSynchronize(s));
  CODE("end_trim", cuDeviceGraphMemTrim(device));
  YES("memory_back", free_bytes() == before);
  YES("memory_back_but_instantiate", free_bytes() == instantiated);
}

/* ---- code ---- */

static void run_module(void) {
  begin();
  handle m = 0, f = 0, f2 = 0, lib = 0, k = 0, bad = 0;
  ptr p = 0;
  size_t n = 0;
  CODE("load", cuModuleLoadData(&m, ptx));
  CODE("load_null", cuModuleLoadData(&bad, 0));
  CODE("function", cuModuleGetFunction(&f, m, "kernel_noop"));
  CODE("function_again", cuModuleGetFunction(&f2, m, "kernel_noop"));
  YES("function_same", f == f2);
  CODE("function_missing", cuModuleGetFunction(&f2, m, "nothing_of_that_name"));
  CODE("global", cuModuleGetGlobal_v2(&p, &n, m, "table"));
  OBS("global_size", "%zu", n);
  CODE("global_missing", cuModuleGetGlobal_v2(&p, &n, m, "nothing"));
  cuModuleGetGlobal_v2(&p, &n, m, "table");
  CODE("global_memset", cuMemsetD8_v2(p, 4, n));
  CODE("global_free", cuMemFree_v2(p));
  CODE("launch", cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0));
  CODE("launch_zero_grid", cuLaunchKernel(f, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0));
  CODE("launch_big_block", cuLaunchKernel(f, 1, 1, 1, 2048, 1, 1, 0, 0, 0, 0));
  CODE("synchronize", cuCtxSynchronize());
  CODE("unload", cuModuleUnload(m));
  CODE("library", cuLibraryLoadData(&lib, ptx, 0, 0, 0, 0, 0, 0));
  CODE("kernel", cuLibraryGetKernel(&k, lib, "kernel_noop"));
  CODE("kernel_missing", cuLibraryGetKernel(&bad, lib, "nothing_of_that_name"));
  CODE("kernel_function", cuKernelGetFunction(&f, k));
  CODE("kernel_launch", cuLaunchKernel(k, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0));
  CODE("library_synchronize", cuCtxSynchronize());
  CODE("library_unload", cuLibraryUnload(lib));
}

/* A kernel that traps: everything in the context fails from then on. */
static void run_trap(void) {
  begin();
  handle m = 0, f = 0, s = stream(1), pool = 0, c = 0, x = 0, bystander = 0;
  CODE("create_bystander", cuCtxCreate_v2(&bystander, 0, device));
  cuCtxPopCurrent_v2(&x);
  ptr a = alloc(4096), async = 0, p = 0, h = 0;
  void *host = 0, *q = 0;
  size_t n, t;
  uint64_t v;
  int dev;
  AllocProp ap = vmm_props(0);
  cuMemAllocAsync(&async, 4096, s);
  cuMemHostAlloc(&host, 4096, 0);
  cuDeviceGetDefaultMemPool(&pool, device);
  size_t g = 2 * MiB;
  cuMemGetAllocationGranularity(&g, &ap, 0);
  cuMemCreate(&h, g, &ap, 0);
  cuStreamSynchronize(s);
  cuModuleLoadData(&m, ptx);
  CODE("function", cuModuleGetFunction(&f, m, "kernel_trap"));
  CODE("launch", cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, s, 0, 0));
  CODE("synchronize", cuStreamSynchronize(s));
  CODE("synchronize_again", cuCtxSynchronize());
  CODE("alloc", cuMemAlloc_v2(&p, 16));
  CODE("free", cuMemFree_v2(a));
  CODE("free_null", cuMemFree_v2(0));
  CODE("free_bad", cuMemFree_v2(0x1000));
  CODE("free_async", cuMemFreeAsync(async, s));
  CODE("alloc_async", cuMemAllocAsync(&p, 16, s));
  CODE("host_alloc", cuMemHostAlloc(&q, 16, 0));
  CODE("free_host", cuMemFreeHost(host));
  CODE("info", cuMemGetInfo_v2(&n, &t));
  CODE("range", cuMemGetAddressRange_v2(&p, &n, a));
  CODE("pointer", cuPointerGetAttribute(&v, 2, a));
  CODE("current", cuCtxGetCurrent(&c));
  CODE("ctx_device", cuCtxGetDevice(&dev));
  CODE("stream_ctx", cuStreamGetCtx(s, &c));
  CODE("pool_attribute", cuMemPoolGetAttribute(pool, 5, &v));
  CODE("mem_create", cuMemCreate(&p, g, &ap, 0));
  CODE("release", cuMemRelease(h));
  CODE("query", cuStreamQuery(s));
  CODE("stream_destroy", cuStreamDestroy_v2(s));
  CODE("module_unload", cuModuleUnload(m));
  CODE("range_null_outs", cuMemGetAddressRange_v2(0, 0, a));
  CODE("create_second_context", cuCtxCreate_v2(&x, 0, device));
  CODE("alloc_in_second", cuMemAlloc_v2(&p, 16));
  cuCtxPushCurrent_v2(bystander);
  CODE("alloc_in_bystander", cuMemAlloc_v2(&p, 16));
  cuCtxPopCurrent_v2(&x);
  CODE("destroy_failed_context", cuCtxDestroy_v2(ctx));
  CODE("create_after_destroy", cuCtxCreate_v2(&x, 0, device));
  CODE("alloc_after_destroy", cuMemAlloc_v2(&p, 16));
  CODE("free_null_after_destroy", cuMemFree_v2(0));
  CODE("retain_primary_after_destroy", cuDevicePrimaryCtxRetain(&x, device));
}

/* ---- entry points ---- */

static void entry(const char *name, int version, uint64_t flags, const char *expect) {
  void *p = (void *)1, *want = expect ? dlsym(driver, expect) : 0;
  int status = 9;
  int r = cuGetProcAddress_v2(name, &p, version, flags, &status);
  OBS("entry", "%s %d flags=%llu: %d status=%d %s", name, version, (unsigned long long)flags, r,
      status, !p ? "null" : expect && p == want ? expect : "other");
}

static void run_resolver(void) {
  entry("cuMemAlloc", 13000, 0, "cuMemAlloc_v2");
  begin();
  entry("cuMemAlloc", 2000, 0, "cuMemAlloc");
  entry("cuMemAlloc", 3010, 0, "cuMemAlloc");
  entry("cuMemAlloc", 3020, 0, "cuMemAlloc_v2");
  entry("cuMemAlloc", 12000, 1, "cuMemAlloc_v2");
  entry("cuMemAlloc", 12000, 2, "cuMemAlloc_v2");
  entry("cuMemAlloc", 12000, 3, "cuMemAlloc_v2");
  entry("cuMemAlloc", 12000, 4, "cuMemAlloc_v2");
  entry("cuMemAlloc", 0, 0, 0);
  entry("cuMemAlloc", 1000, 0, 0);
  entry("cuMemAlloc", 99990, 0, "cuMemAlloc_v2");
  entry("cuMemAlloc_v2", 12000, 0, "cuMemAlloc_v2");
  entry("cuMemFree", 12000, 0, "cuMemFree_v2");
  entry("cuMemAllocAsync", 11010, 0, 0);
  entry("cuMemAllocAsync", 11020, 0, "cuMemAllocAsync");
  entry("cuMemAllocAsync", 12000, 2, "cuMemAllocAsync_ptsz");
  entry("cuMemAllocAsync_ptsz", 12000, 0, "cuMemAllocAsync_ptsz");
  entry("cuMemcpyHtoD", 12000, 2, "cuMemcpyHtoD_v2_ptds");
  entry("cuMemcpyHtoD", 6000, 2, "cuMemcpyHtoD_v2");
  entry("cuMemcpyHtoD", 7000, 2, "cuMemcpyHtoD_v2_ptds");
  entry("cuMemcpyHtoD", 3020, 2, "cuMemcpyHtoD_v2");
  entry("cuCtxCreate", 3020, 0, "cuCtxCreate_v2");
  entry("cuCtxCreate", 11040, 0, "cuCtxCreate_v3");
  entry("cuCtxCreate", 12050, 0, "cuCtxCreate_v4");
  entry("cuCtxCreate", 13000, 0, "cuCtxCreate_v4");
  entry("cuCtxGetDevice", 12000, 0, "cuCtxGetDevice");
  entry("cuCtxGetDevice", 13000, 0, "cuCtxGetDevice_v2");
  entry("cuCtxSynchronize", 13000, 0, "cuCtxSynchronize_v2");
  entry("cuStreamGetCtx", 12000, 0, "cuStreamGetCtx");
  entry("cuStreamGetCtx", 12050, 0, "cuStreamGetCtx_v2");
  entry("cuStreamGetCtx", 12050, 2, "cuStreamGetCtx_v2_ptsz");
  entry("cuIpcOpenMemHandle", 4010, 0, "cuIpcOpenMemHandle");
  entry("cuIpcOpenMemHandle", 11000, 0, "cuIpcOpenMemHandle_v2");
  entry("cuGraphInstantiate", 10000, 0, "cuGraphInstantiate");
  entry("cuGraphInstantiate", 11000, 0, "cuGraphInstantiate_v2");
  entry("cuGraphInstantiate", 12000, 0, "cuGraphInstantiate_v2");
  entry("cuGraphInstantiateWithFlags", 11040, 0, "cuGraphInstantiateWithFlags");
  entry("cuStreamBeginCapture", 10000, 0, "cuStreamBeginCapture");
  entry("cuStreamBeginCapture", 10010, 2, "cuStreamBeginCapture_v2_ptsz");
  entry("cuStreamGetCaptureInfo", 11030, 0, "cuStreamGetCaptureInfo_v2");
  entry("cuStreamGetCaptureInfo", 12030, 0, "cuStreamGetCaptureInfo_v3");
  entry("cuGraphAddNode", 12020, 0, "cuGraphAddNode");
  entry("cuGraphAddNode", 12030, 0, "cuGraphAddNode_v2");
  entry("cuMulticastCreate", 12010, 0, "cuMulticastCreate");
  entry("cuGetProcAddress", 11030, 0, "cuGetProcAddress");
  entry("cuGetProcAddress", 12000, 0, "cuGetProcAddress_v2");
  entry("cuGetExportTable", 12000, 0, "cuGetExportTable");
  entry("cuNothingOfThatName", 12000, 0, 0);
  entry("", 12000, 0, 0);
  void *p = (void *)1;
  CODE("v1_found", cuGetProcAddress("cuMemAlloc", &p, 11030, 0));
  YES("v1_right", p == dlsym(driver, "cuMemAlloc_v2"));
  p = (void *)1;
  CODE("v1_unknown", cuGetProcAddress("cuNothingOfThatName", &p, 11030, 0));
  YES("v1_unknown_null", p == 0);
  CODE("null_status", cuGetProcAddress_v2("cuMemAlloc", &p, 12000, 0, 0));
  CODE("null_status_unknown", cuGetProcAddress_v2("cuNothingOfThatName", &p, 12000, 0, 0));
  /* NULL for the name, or for the function's place, makes the driver crash. */
  const void *table = (void *)1;
  char id[16] = {1, 2, 3};
  CODE("export_table_unknown", cuGetExportTable(&table, id));
  YES("export_table_unknown_null", table == 0);
  YES("dlsym_cuMemAlloc_differs_from_v2", dlsym(driver, "cuMemAlloc") != dlsym(driver, "cuMemAlloc_v2"));
}

/* ---- leaving ---- */

static ptr left;
static void at_exit_free(void) {
  CODE("free_in_atexit", cuMemFree_v2(left));
  CODE("free_in_atexit_again", cuMemFree_v2(left));
}
static void run_exit(void) {
  atexit(at_exit_free);
  begin();
  left = alloc(4096);
  CODE("live_at_exit", left ? 0 : 1);
  exit(0);
}
static void __attribute__((destructor)) at_unload(void) {
  if (section && !strcmp(section, "exit_late")) CODE("free_in_destructor", cuMemFree_v2(left));
}
static void run_exit_late(void) {
  begin();
  left = alloc(4096);
  exit(0);
}

static void run_fork(void) {
  begin();
  ptr p = alloc(4096);
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    ptr q = 0;
    handle c = 0;
    int n = 0;
    alarm(20); /* not inherited */
    CODE("child_init", cuInit(0));
    CODE("child_count", cuDeviceGetCount(&n));
    CODE("child_current", cuCtxGetCurrent(&c));
    CODE("child_alloc", cuMemAlloc_v2(&q, 16));
    CODE("child_free", cuMemFree_v2(p));
    _exit(0);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  YES("child_ended", WIFEXITED(status));
  CODE("parent_free", cuMemFree_v2(p));
}

static const struct { const char *name; void (*run)(void); int hidden; } sections[] = {
    {"init", run_init, 0}, {"nocontext", run_nocontext, 0}, {"context", run_context, 0},
    {"ctx_destroy", run_ctx_destroy, 0}, {"primary", run_primary, 0}, {"linear", run_linear, 0},
    {"host", run_host, 0}, {"managed", run_managed, 0}, {"pointer", run_pointer, 0},
    {"async", run_async, 0}, {"pool", run_pool, 0}, {"array", run_array, 0}, {"vmm", run_vmm, 0},
    {"vmm_ranges", run_vmm_ranges, 0},
    {"ipc", run_ipc, 0}, {"ipc-child", run_ipc_child, 1}, {"share", run_share, 0},
    {"share-child", run_share_child, 1}, {"pool-child", run_pool_child, 1},
    {"external", run_external, 0}, {"stream", run_stream, 0},
    {"capture_queries", run_capture_queries, 0}, {"capture_calls", run_capture_calls, 0},
    {"capture_threads", run_capture_threads, 0}, {"graph", run_graph, 0},
    {"graph_memory", run_graph_memory, 0}, {"module", run_module, 0}, {"trap", run_trap, 0},
    {"resolver", run_resolver, 0}, {"exit", run_exit, 0}, {"exit_late", run_exit_late, 0},
    {"fork", run_fork, 0},
};
enum { SECTIONS = sizeof sections / sizeof *sections };

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "--list")) {
    for (int i = 0; i < SECTIONS; i++)
      if (!sections[i].hidden) puts(sections[i].name);
    return 0;
  }
  if (argc > 1) {
    for (int i = 0; i < SECTIONS; i++) {
      if (strcmp(argv[1], sections[i].name)) continue;
      alarm(120);
      section = sections[i].name;
      load();
      sections[i].run();
      return 0;
    }
    fprintf(stderr, "no section %s\n", argv[1]);
    return 2;
  }
  for (int i = 0; i < SECTIONS; i++) {
    if (sections[i].hidden) continue;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
      execl("/proc/self/exe", "conformance", sections[i].name, (char *)0);
      _exit(9);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status)) printf("%s: ended by signal %d\n", sections[i].name, WTERMSIG(status));
    else printf("%s: ended with %d\n", sections[i].name, WEXITSTATUS(status));
  }
  return 0;
}
