/* Explicit pools: trimmed, destroyed while blocks are live, made the device's current one. */
#include "../support/cu.h"

int main(void) {
  CUmemoryPool pool, other, current;
  CUdeviceptr at[4], later;
  unsigned long long keep = ~0ull, reserved = 0;
  cu_open();

  pool = new_pool();
  CU(cuMemPoolSetAttribute(pool, 4 /* RELEASE_THRESHOLD */, &keep));
  for (int i = 0; i < 4; i++) at[i] = new_from_pool(MIB + i, pool, NULL);
  free_async(at[0], MIB, NULL);
  CU(cuCtxSynchronize());
  CU(cuMemPoolTrimTo(pool, 0));
  CU(cuMemPoolGetAttribute(pool, 5 /* RESERVED_MEM_CURRENT */, &reserved));
  printf("a trimmed pool holds its blocks: %s\n", reserved >= 3 * MIB ? "yes" : "no");
  CU(cuMemPoolDestroy(pool)); /* deferred: three blocks are live */
  free_async(at[1], MIB + 1, NULL);
  CU(cuCtxSynchronize());

  other = new_pool(); /* often the same handle */
  later = new_from_pool(12345, other, NULL);
  CU(cuDeviceGetMemPool(&current, cu_device));
  CU(cuDeviceSetMemPool(cu_device, other));
  new_async(23456, NULL);
  CU(cuDeviceSetMemPool(cu_device, current));
  new_async(34567, NULL);
  free_async(later, 12345, NULL);
  CU(cuCtxSynchronize());
  CU(cuMemPoolDestroy(other));

  pool = new_pool();
  free_async(new_from_pool(5 * MIB, pool, NULL), 5 * MIB, NULL);
  CU(cuCtxSynchronize());
  CU(cuMemPoolDestroy(pool)); /* empty: at once */
  free_async(at[2], MIB + 2, NULL);
  CU(cuCtxSynchronize());
  return truth_finish(cu_reset);
}
