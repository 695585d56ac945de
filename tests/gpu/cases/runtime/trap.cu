// A kernel traps: every later call answers 719, and what is live can't be freed.
#include "../support/runtime.h"

__global__ void stop() { asm volatile("trap;"); }

int main() {
  char *at = rt_device(MIB);
  rt_device(2 * MIB);
  rt_free(rt_device(4096), 4096);
  rt_pinned(10000);
  rt_async(3 * MIB, 0);
  RT(cudaDeviceSynchronize());
  RT(cudaLaunchKernel((const void *)stop, dim3(1), dim3(1), NULL, 0, 0));
  printf("synchronised: %d\n", (int)cudaDeviceSynchronize());
  printf("free: %d\n", (int)cudaFree(at));
  truth_ended(DEVICE, CORRUPTED);
  truth_ended(PINNED, CORRUPTED);
  truth_ended(ASYNC, CORRUPTED);
  return truth_finish(NULL);
}
