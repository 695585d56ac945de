/* Modules loaded and unloaded, with memory of their own; the live set is about allocations only. */
#include "../support/cu.h"

static const char image[] =
    ".version 7.0\n.target sm_75\n.address_size 64\n"
    ".visible .global .align 8 .b8 buffer[4194304];\n"
    ".visible .entry nothing()\n{\n ret;\n}\n";

int main(void) {
  cu_open();
  for (int i = 0; i < 10; i++) {
    CUmodule module;
    CUfunction kernel;
    CUdeviceptr at = 0;
    size_t bytes = 0;
    CU(cuModuleLoadData(&module, image));
    CU(cuModuleGetFunction(&kernel, module, "nothing"));
    CU(cuModuleGetGlobal_v2(&at, &bytes, module, "buffer"));
    printf("buffer of %zu bytes, freed as if allocated: %u\n", bytes, (unsigned)cuMemFree_v2(at));
    CU(cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
    CU(cuCtxSynchronize());
    if (i < 8) CU(cuModuleUnload(module));
    new_device(5000 + i);
  }
  return truth_finish(cu_reset);
}
