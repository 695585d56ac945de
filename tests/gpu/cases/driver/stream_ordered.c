/* cuMemAllocAsync on several streams, freed on others and by cuMemFree. */
#include "../support/cu.h"

int main(void) {
  CUstream streams[4], legacy = (CUstream)1, per_thread = (CUstream)2;
  CUdeviceptr at[40];
  cu_open();
  for (int i = 0; i < 2; i++) CU(cuStreamCreate(&streams[i], i /* 1: non-blocking */));
  streams[2] = legacy, streams[3] = per_thread;
  for (int i = 0; i < 40; i++) at[i] = new_async(1000 + 4321 * i, streams[i % 4]);
  CU(cuCtxSynchronize());
  for (int i = 0; i < 30; i++) {
    if (i % 5 == 4) {
      CU(cuMemFree_v2(at[i]));
      truth_free(ASYNC, 1000 + 4321 * i);
    } else free_async(at[i], 1000 + 4321 * i, streams[(i + 1) % 4]);
  }
  for (int i = 0; i < 2; i++) {
    CU(cuStreamSynchronize(streams[i]));
    CU(cuStreamDestroy_v2(streams[i]));
  }
  at[0] = new_async(77, NULL);
  free_async(at[39], 1000 + 4321 * 39, NULL);
  CU(cuCtxSynchronize());
  return truth_finish(cu_reset);
}
