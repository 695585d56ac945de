/* A kernel traps: from then on the context answers 719 to everything, and what is live can't be freed. */
#include "../support/cu.h"

#define KERNEL(name) ".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry " name "()\n{\n trap;\n ret;\n}\n"

int main(void) {
  CUmodule module;
  CUfunction kernel;
  CUdeviceptr at, async;
  const char *name = "stop";
  void *host;
  cu_open();
  at = new_device(MIB);
  free_device(new_device(4096), 4096);
  new_device(2 * MIB);
  async = new_async(3 * MIB, NULL);
  host = new_pinned(10000, 0);
  CU(cuCtxSynchronize());
  /* A simulated driver runs no code and knows such a kernel by its name, which PTX does not allow. */
  if (cuModuleLoadData(&module, KERNEL("trap"))) CU(cuModuleLoadData(&module, KERNEL("stop")));
  else name = "trap";
  CU(cuModuleGetFunction(&kernel, module, name));
  cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);
  printf("synchronised: %u\n", (unsigned)cuCtxSynchronize());
  printf("free: %u, freeAsync: %u, freeHost: %u, alloc: %u\n", (unsigned)cuMemFree_v2(at), (unsigned)cuMemFreeAsync(async, NULL),
         (unsigned)cuMemFreeHost(host), (unsigned)cuMemAlloc_v2(&at, 4096));
  truth_ended(DEVICE, CORRUPTED);
  truth_ended(ASYNC, CORRUPTED);
  truth_ended(PINNED, CORRUPTED);
  return truth_finish(NULL);
}
