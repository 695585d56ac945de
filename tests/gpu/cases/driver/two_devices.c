/* Memory of two devices, with contexts current that are not that device's. Says what each device and the
 * host hold: {"pid":1,"of_device":{"0":{"device":[4096,1]}},"host":{"pinned":[4096,1]},"uuids":["GPU-…"]} */
#include "../support/cu.h"

#ifndef CU_CHECK
typedef struct { char bytes[16]; } CUuuid;
#endif
typedef CUresult can_access(int *, CUdevice, CUdevice);
typedef CUresult enable_peer(CUcontext, unsigned);
typedef CUresult set_access(CUmemoryPool, const CUmemAccessDesc *, size_t);
typedef CUresult get_uuid(CUuuid *, CUdevice);

enum { DEVICES = 2, HOST = DEVICES };
static struct { long long bytes, count; } sums[DEVICES + 1][TRUTH_KINDS];

static void made(int of, enum truth_kind kind, size_t bytes) { sums[of][kind].bytes += bytes, sums[of][kind].count++; }
static void gone(int of, enum truth_kind kind, size_t bytes) { sums[of][kind].bytes -= bytes, sums[of][kind].count--; }

static void *function(const char *name) {
  void *found = dlsym(dlopen("libcuda.so.1", RTLD_NOW), name);
  if (!found) fprintf(stderr, "the driver has no %s\n", name), exit(3);
  return found;
}

static void print_sums(int of) {
  const char *comma = "";
  printf("{");
  for (int kind = 0; kind < TRUTH_KINDS; kind++)
    if (sums[of][kind].count) {
      printf("%s\"%s\":[%lld,%lld]", comma, truth_kind_names[kind], sums[of][kind].bytes, sums[of][kind].count);
      comma = ",";
    }
  printf("}");
}

static void print_uuid(CUdevice device) {
  CUuuid uuid;
  CU(((get_uuid *)function("cuDeviceGetUuid"))(&uuid, device));
  printf("\"GPU-");
  for (int at = 0; at < 16; at++) printf("%s%02x", at == 4 || at == 6 || at == 8 || at == 10 ? "-" : "", (unsigned char)uuid.bytes[at]);
  printf("\"");
}

static CUdeviceptr linear(int device, size_t bytes) {
  CUdeviceptr at;
  CU(cuMemAlloc_v2(&at, bytes));
  made(device, DEVICE, bytes);
  return at;
}

static CUdeviceptr from_pool(int device, size_t bytes, CUmemoryPool pool) {
  CUdeviceptr at;
  CU(cuMemAllocFromPoolAsync(&at, bytes, pool, NULL));
  made(device, ASYNC, bytes);
  return at;
}

static CUdeviceptr async(int device, size_t bytes) {
  CUdeviceptr at;
  CU(cuMemAllocAsync(&at, bytes, NULL));
  made(device, ASYNC, bytes);
  return at;
}

int main(void) {
  int count = 0, peers = 0;
  CUcontext contexts[DEVICES], second;
  CUdeviceptr blocks[DEVICES], freed, mapped, managed;
  CUmemoryPool pool, usual;
  CUarray array;
  CUDA_ARRAY_DESCRIPTOR shape = {64, 64, FORMAT_FLOAT, 1};
  CUmemAllocationProp prop;
  CUmemAccessDesc access;
  CUmemGenericAllocationHandle handle;
  size_t granularity;
  void *host;
  cu_load();
  /* In another order of devices than there are, none may be visible. */
  if (cuInit(0) || cuDeviceGetCount(&count) || count < DEVICES) return fprintf(stderr, "there is one device\n"), 77;
  for (int device = 0; device < DEVICES; device++) {
    CU(cuDevicePrimaryCtxRetain(&contexts[device], device));
    CU(cuCtxSetCurrent(contexts[device]));
    linear(device, (device + 1) * 3 * MIB);
    blocks[device] = linear(device, 777);
    async(device, (device + 1) * 100000);
    CU(cuArrayCreate_v2(&array, &shape));
    made(device, ARRAY, 64 * 64 * 4);
    CU(cuMemHostAlloc(&host, 5000 + device, 0));
    made(HOST, PINNED, 5000 + device);
  }
  /* The second device is current. */
  freed = async(1, 50000);
  CU(cuMemAllocManaged(&managed, MIB, 1));
  made(1, MANAGED, MIB);

  CU(cuCtxSetCurrent(contexts[0]));
  CU(cuMemFree_v2(blocks[1])); /* the other device's */
  gone(1, DEVICE, 777);
  CU(((can_access *)function("cuDeviceCanAccessPeer"))(&peers, 0, 1));
  if (peers) {
    CU(((enable_peer *)function("cuCtxEnablePeerAccess"))(contexts[1], 0));
    CU(cuMemFreeAsync(freed, NULL));
    gone(1, ASYNC, 50000);
  }

  /* Physical memory of the other device, mapped where this one sees it. */
  cu_device = 1;
  prop = cu_on_device();
  CU(cuMemGetAllocationGranularity(&granularity, &prop, 0));
  CU(cuMemCreate(&handle, granularity, &prop, 0));
  made(1, VMM, granularity);
  CU(cuMemAddressReserve(&mapped, granularity, 0, 0, 0));
  CU(cuMemMap(mapped, granularity, 0, handle, 0));
  access.location = prop.location;
  access.flags = 3;
  CU(cuMemSetAccess(mapped, granularity, &access, 1));

  /* A pool of the other device, used from here. */
  pool = new_pool();
  if (peers) {
    access.location.id = 0;
    CU(((set_access *)function("cuMemPoolSetAccess"))(pool, &access, 1));
    from_pool(1, 70000, pool);
    freed = from_pool(1, 80000, pool);
    CU(cuMemFreeAsync(freed, NULL));
    gone(1, ASYNC, 80000);
  }
  /* The other device's current pool is another one for a while. */
  CU(cuDeviceGetMemPool(&usual, 1));
  CU(cuDeviceSetMemPool(1, pool));
  CU(cuCtxSetCurrent(contexts[1]));
  async(1, 90000);
  CU(cuDeviceSetMemPool(1, usual));
  async(1, 95000);

  /* A context of its own on the other device, destroyed with live memory while the first device is current. */
  CU(cuCtxCreate_v2(&second, 0, 1));
  CU(cuMemAlloc_v2(&freed, 4 * MIB));
  CU(cuCtxSetCurrent(contexts[0]));
  CU(cuCtxDestroy_v2(second));
  linear(0, 123);
  CU(cuCtxSynchronize());

  printf("{\"pid\":%d,\"of_device\":{\"0\":", (int)getpid());
  print_sums(0);
  printf(",\"1\":");
  print_sums(1);
  printf("},\"host\":");
  print_sums(HOST);
  printf(",\"uuids\":[");
  print_uuid(0);
  printf(",");
  print_uuid(1);
  printf("],\"peers\":%s}\n", peers ? "true" : "false");
  fflush(stdout);
  _exit(0);
}
