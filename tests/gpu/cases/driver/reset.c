/* The primary context goes with everything in it: by its last release, and by a reset. Stream-ordered
 * memory belongs to the device and stays. */
#include "../support/cu.h"

static void fill(size_t bytes) {
  CUarray array;
  CUDA_ARRAY_DESCRIPTOR flat = {100, 10, FORMAT_U8, 4};
  new_device(bytes);
  free_device(new_device(bytes + 1), bytes + 1);
  new_managed(MIB + bytes);
  new_pinned(bytes + 2, 0);
  CU(cuArrayCreate_v2(&array, &flat));
  truth_alloc(ARRAY, 4000);
  new_async(bytes + 3, NULL);
  CU(cuCtxSynchronize());
}

static void all_ended(void) {
  static const enum truth_kind kinds[] = {DEVICE, MANAGED, PINNED, ARRAY};
  for (int i = 0; i < 4; i++) truth_ended(kinds[i], BY_RESET);
}

int main(void) {
  CUcontext context = cu_open();
  fill(10000);
  CU(cuDevicePrimaryCtxRetain(&context, cu_device));
  CU(cuDevicePrimaryCtxRelease_v2(cu_device)); /* not the last: nothing happens */
  fill(11000);
  CU(cuDevicePrimaryCtxRelease_v2(cu_device)); /* the last */
  all_ended();

  CU(cuDevicePrimaryCtxRetain(&context, cu_device));
  CU(cuCtxSetCurrent(context));
  fill(20000);
  CU(cuDevicePrimaryCtxReset_v2(cu_device));
  all_ended();

  CU(cuDevicePrimaryCtxRetain(&context, cu_device));
  CU(cuCtxSetCurrent(context));
  fill(30000);
  return truth_finish(cu_reset);
}
