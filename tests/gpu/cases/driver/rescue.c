/* A pool keeps five eighths of what is free and uses none of it; then half of what was free is asked for by cuMemAlloc.
 * Does the driver give back by itself, and does a rescue? */
#include "../support/cu.h"

int main(void) {
  size_t free_bytes, total;
  CUdeviceptr block, at = 0;
  CUmemoryPool pool;
  uint64_t keep = ~(uint64_t)0, before = 0, after = 0;
  cu_open();
  CU(cuDeviceGetDefaultMemPool(&pool, 0));
  CU(cuMemPoolSetAttribute(pool, 4, &keep));
  CU(cuMemGetInfo_v2(&free_bytes, &total));
  CU(cuMemAllocAsync(&block, free_bytes / 8 * 5, NULL));
  CU(cuMemFreeAsync(block, NULL));
  CU(cuMemPoolGetAttribute(pool, 5, &before));
  unsigned result = cuMemAlloc_v2(&at, free_bytes / 2);
  CU(cuMemPoolGetAttribute(pool, 5, &after));
  printf("{\"rescue\":{\"asked\":%zu,\"result\":%u,\"before\":%llu,\"after\":%llu}}\n", free_bytes / 2, result,
         (unsigned long long)before, (unsigned long long)after);
  return 0;
}
