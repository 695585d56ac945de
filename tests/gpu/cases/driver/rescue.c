/* A pool keeps five eighths of what is free and uses none of it, freed on a stream that the legacy one waits for and on one
 * that it does not; then half of what was free is asked for by cuMemAlloc.
 * Does the driver give back by itself, and does a rescue? */
#include "../support/cu.h"

int main(void) {
  size_t free_bytes, total;
  CUdeviceptr block, other, at = 0;
  CUstream stream;
  CUmemoryPool pool;
  uint64_t keep = ~(uint64_t)0, before = 0, after = 0;
  cu_open();
  CU(cuDeviceGetDefaultMemPool(&pool, 0));
  CU(cuMemPoolSetAttribute(pool, 4, &keep));
  CU(cuMemGetInfo_v2(&free_bytes, &total));
  CU(cuStreamCreate(&stream, 1));
  CU(cuMemAllocAsync(&block, free_bytes / 8 * 3, NULL));
  CU(cuMemAllocAsync(&other, free_bytes / 8 * 2, stream));
  CU(cuMemFreeAsync(block, NULL));
  CU(cuMemFreeAsync(other, stream));
  CU(cuMemPoolGetAttribute(pool, 5, &before));
  unsigned result = cuMemAlloc_v2(&at, free_bytes / 2);
  CU(cuMemPoolGetAttribute(pool, 5, &after));
  printf("{\"rescue\":{\"asked\":%zu,\"result\":%u,\"before\":%llu,\"after\":%llu}}\n", free_bytes / 2, result,
         (unsigned long long)before, (unsigned long long)after);
  return 0;
}
