/* 300,000 events into a ring that holds a few thousand: history is lost, the live set is not. */
#include "../support/cu.h"

int main(void) {
  CUdeviceptr kept[60];
  cu_open();
  for (int i = 0; i < 60; i++) kept[i] = i % 2 ? new_async(1000 + i, NULL) : new_device(1000 + i);
  for (int i = 0; i < 147000; i++) {
    CUdeviceptr at;
    CU(cuMemAllocAsync(&at, 4096 + i % 1000, NULL));
    CU(cuMemFreeAsync(at, NULL));
  }
  for (int i = 0; i < 3000; i++) free_device(new_device(64), 64);
  for (int i = 0; i < 20; i += 2) free_device(kept[i], 1000 + i);
  new_async(54321, NULL);
  CU(cuCtxSynchronize());
  return truth_finish(cu_reset);
}
