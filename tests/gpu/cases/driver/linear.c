/* Linear, pitched and managed memory; frees of nothing and of nonsense. */
#include "../support/cu.h"

int main(void) {
  static const size_t sizes[] = {1, 255, 256, 257, 4096, 65537, MIB, 3 * MIB + 7, 20 * MIB};
  CUdeviceptr at[27], pitched, managed;
  size_t pitch, n = sizeof sizes / sizeof *sizes;
  cu_open();
  for (size_t i = 0; i < 27; i++) at[i] = new_device(sizes[i % n]);
  for (size_t i = 0; i < 27; i += 3) free_device(at[i], sizes[i % n]);
  printf("free of null %u, freed twice %u, never allocated %u\n", (unsigned)cuMemFree_v2(0), (unsigned)cuMemFree_v2(at[24]),
         (unsigned)cuMemFree_v2(0x1000));
  for (unsigned i = 0; i < 6; i++) {
    CU(cuMemAllocPitch_v2(&pitched, &pitch, 100 + 777 * i, 17 + i, 4u << i % 3));
    if (i % 2) CU(cuMemFree_v2(pitched));
    else truth_alloc(DEVICE, pitch * (17 + i));
  }
  for (int i = 0; i < 3; i++) managed = new_managed(MIB + 5 * i);
  CU(cuMemFree_v2(managed));
  truth_free(MANAGED, MIB + 10);
  printf("of nothing %u\n", (unsigned)cuMemAlloc_v2(&pitched, 0));
  return truth_finish(cu_reset);
}
