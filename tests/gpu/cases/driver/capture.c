/* A capture in global mode, with every kind of memory call inside it and around it. Whoever watches
 * may not disturb it: what is printed must be the same with and without. Calls that a global capture
 * forbids are made under the relaxed mode, as libraries do. */
#include "../support/cu.h"

static CUstream stream, beside;

static void say(const char *what, unsigned result) { printf("%s: %u\n", what, result); }

/* Everything that allocates and frees, each with its result. What stays is counted. */
static void exercise(const char *where) {
  CUdeviceptr at = 0, range = 0;
  CUmemoryPool pool = NULL;
  CUarray array = NULL;
  CUmipmappedArray mipmap = NULL;
  CUDA_ARRAY3D_DESCRIPTOR shape = {64, 64, 0, FORMAT_FLOAT, 1, 0};
  CUDA_ARRAY_DESCRIPTOR flat = {64, 64, FORMAT_FLOAT, 1};
  CUmemGenericAllocationHandle handle = 0;
  CUmemAllocationProp prop = cu_on_device();
  CUmemPoolProps props;
  CUmemAccessDesc access;
  CUstreamCaptureStatus status = 0;
  size_t pitch = 0, granularity = 0, free_bytes, total;
  void *host = NULL, *own = NULL;
  unsigned result;

  printf("-- %s\n", where);
  say("info", cuMemGetInfo_v2(&free_bytes, &total));
  say("is capturing", cuStreamIsCapturing(stream, &status));
  say("status", status);
  say("alloc", result = cuMemAlloc_v2(&at, 1111));
  if (!result) truth_alloc(DEVICE, 1111);
  say("alloc", result = cuMemAlloc_v2(&at, 2222));
  if (!result) say("free", cuMemFree_v2(at));
  say("pitch", result = cuMemAllocPitch_v2(&at, &pitch, 333, 7, 4));
  if (!result) say("free", cuMemFree_v2(at));
  say("managed", result = cuMemAllocManaged(&at, MIB, 1));
  if (!result) say("free", cuMemFree_v2(at));
  say("host", result = cuMemHostAlloc(&host, 4444, 0));
  if (!result) say("free", cuMemFreeHost(host));
  if (posix_memalign(&own, 4096, 65536)) exit(3);
  memset(own, 1, 65536);
  say("register", result = cuMemHostRegister_v2(own, 65536, 0));
  if (!result) say("unregister", cuMemHostUnregister(own));
  say("array", result = cuArrayCreate_v2(&array, &flat));
  if (!result) say("destroy", cuArrayDestroy(array));
  say("mipmap", result = cuMipmappedArrayCreate(&mipmap, &shape, 3));
  if (!result) say("destroy", cuMipmappedArrayDestroy(mipmap));
  say("async beside", result = cuMemAllocAsync(&at, 5555, beside));
  if (!result) say("free", cuMemFreeAsync(at, beside));
  memset(&props, 0, sizeof props);
  props.allocType = 1;
  props.location = prop.location;
  say("pool", result = cuMemPoolCreate(&pool, &props));
  if (!result) {
    say("from pool", result = cuMemAllocFromPoolAsync(&at, 6666, pool, beside));
    if (!result) say("free", cuMemFreeAsync(at, beside));
    say("sync", cuStreamSynchronize(beside));
    say("destroy", cuMemPoolDestroy(pool));
  }
  say("granularity", cuMemGetAllocationGranularity(&granularity, &prop, 0));
  say("reserve", cuMemAddressReserve(&range, 2 * granularity, 0, 0, 0));
  say("create", cuMemCreate(&handle, granularity, &prop, 0));
  say("map", cuMemMap(range, granularity, 0, handle, 0));
  access.location = prop.location;
  access.flags = 3;
  say("access", cuMemSetAccess(range, granularity, &access, 1));
  say("release", cuMemRelease(handle));
  say("unmap", cuMemUnmap(range, granularity));
  say("unreserve", cuMemAddressFree(range, 2 * granularity));
  free(own);
}

int main(void) {
  static unsigned words[1024];
  CUdeviceptr result, scratch, kept;
  CUgraph graph;
  CUgraphExec executable;
  CUstreamCaptureMode mode;
  unsigned long long sum = 0;
  unsigned forbidden;
  cu_open();
  CU(cuStreamCreate(&stream, 1));
  CU(cuStreamCreate(&beside, 1));
  result = new_device(sizeof words);
  new_async(999, stream); /* so that the default pool exists */
  CU(cuStreamSynchronize(stream));
  exercise("before");

  CU(cuStreamBeginCapture_v2(stream, CAPTURE_GLOBAL));
  CU(cuMemAllocAsync(&scratch, sizeof words, stream));
  CU(cuMemsetD32Async(scratch, 0x01020304, 1024, stream));
  mode = CAPTURE_RELAXED;
  CU(cuThreadExchangeStreamCaptureMode(&mode));
  exercise("inside");
  CU(cuThreadExchangeStreamCaptureMode(&mode));
  CU(cuMemcpyDtoDAsync_v2(result, scratch, sizeof words, stream));
  CU(cuMemFreeAsync(scratch, stream));
  CU(cuMemAllocAsync(&kept, 7777, stream));
  CU(cuStreamEndCapture(stream, &graph));

  exercise("between");
  CU(cuGraphInstantiateWithFlags(&executable, graph, 0));
  CU(cuGraphLaunch(executable, stream));
  CU(cuStreamSynchronize(stream));
  truth_alloc(GRAPH, 7777);
  CU(cuMemcpyDtoH_v2(words, result, sizeof words));
  for (int i = 0; i < 1024; i++) sum += words[i];
  printf("the graph wrote %llx\n", sum);

  CU(cuStreamBeginCapture_v2(stream, CAPTURE_GLOBAL)); /* a capture that breaks, as it does untraced */
  say("forbidden", forbidden = cuMemAlloc_v2(&scratch, 8888));
  if (!forbidden) truth_alloc(DEVICE, 8888);
  say("ends", cuStreamEndCapture(stream, &graph));
  exercise("after");
  return truth_finish(cu_reset);
}
