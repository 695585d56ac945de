/* A context destroyed with live memory of each kind. Physical and stream-ordered memory belong to
 * the device and outlive it. */
#include "../support/cu.h"

int main(void) {
  CUcontext primary = cu_open(), context;
  CUDA_ARRAY3D_DESCRIPTOR shape = {64, 64, 0, FORMAT_FLOAT, 1, 0};
  CUDA_ARRAY_DESCRIPTOR flat = {100, 10, FORMAT_U8, 4};
  CUarray array;
  CUmipmappedArray mipmap;
  CUmemAllocationProp prop = cu_on_device();
  size_t granularity;
  void *own;

  new_device(1111); /* in the primary context: stays */
  new_pinned(2222, 0);

  CU(cuCtxCreate_v2(&context, 0, cu_device));
  for (int i = 0; i < 5; i++) new_device(MIB + i);
  free_device(new_device(999), 999);
  new_managed(3 * MIB);
  new_pinned(54321, 0);
  if (posix_memalign(&own, 4096, 8192)) return 3;
  memset(own, 1, 8192);
  CU(cuMemHostRegister_v2(own, 8192, 0));
  CU(cuArrayCreate_v2(&array, &flat));
  CU(cuMipmappedArrayCreate(&mipmap, &shape, 2));
  new_async(77777, NULL);
  CU(cuCtxSynchronize());
  CU(cuMemGetAllocationGranularity(&granularity, &prop, 0));
  new_vmm(granularity);
  CU(cuCtxDestroy_v2(context));

  truth_change(DEVICE, BY_CONTEXT, 5 * MIB + 10, 5);
  truth_change(DEVICE, LIVE, -(5 * MIB + 10), -5);
  truth_ended(MANAGED, BY_CONTEXT);
  truth_change(PINNED, BY_CONTEXT, 54321, 1);
  truth_change(PINNED, LIVE, -54321, -1);
  truth_change(REGISTERED, BY_CONTEXT, 8192, 1);
  truth_change(ARRAY, BY_CONTEXT, 4000 + 4 * (64 * 64 + 32 * 32), 2);

  CU(cuCtxSetCurrent(primary));
  new_device(3333);
  return truth_finish(cu_reset);
}
