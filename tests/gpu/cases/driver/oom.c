/* Requests that no device can serve, each of which must be on record with what was asked. */
#include "../support/cu.h"

int main(void) {
  const size_t tib = (size_t)1 << 40;
  CUdeviceptr at;
  CUmemGenericAllocationHandle handle;
  CUmemAllocationProp prop;
  size_t free_bytes, total, pitch, asked[3] = {tib, tib + 2 * MIB, tib + 4 * MIB};
  unsigned results[3], other;
  cu_open();
  prop = cu_on_device();
  new_device(MIB);
  results[0] = cuMemAlloc_v2(&at, asked[0]);
  results[1] = cuMemAllocAsync(&at, asked[1], NULL);
  results[2] = cuMemCreate(&handle, asked[2], &prop, 0);
  other = cuMemAllocPitch_v2(&at, &pitch, 100, 10, 3); /* a mistake, no lack of memory */
  printf("alloc %u, async %u, create %u, element size 3: %u\n", results[0], results[1], results[2], other);
  new_device(2 * MIB);
  CU(cuMemGetInfo_v2(&free_bytes, &total));
  printf("{\"failed\":[");
  for (int i = 0, n = 0; i < 3; i++)
    if (results[i] == 2) printf("%s%zu", n++ ? "," : "", asked[i]);
  printf("],\"total\":%zu}\n", total);
  return truth_finish(cu_reset);
}
