/* Virtual memory management in odd but legal orders. */
#include "../support/cu.h"

static size_t g;

static CUdeviceptr reserve(size_t bytes) {
  CUdeviceptr at;
  CU(cuMemAddressReserve(&at, bytes, 0, 0, 0));
  return at;
}

static void map(CUdeviceptr at, size_t bytes, CUmemGenericAllocationHandle handle) {
  CUmemAccessDesc access;
  access.location = cu_on_device().location;
  access.flags = 3; /* read and write */
  CU(cuMemMap(at, bytes, 0, handle, 0));
  CU(cuMemSetAccess(at, bytes, &access, 1));
}

int main(void) {
  CUmemAllocationProp prop;
  CUmemGenericAllocationHandle handle, again, parts[3];
  CUdeviceptr at;
  unsigned result;
  cu_open();
  prop = cu_on_device();
  CU(cuMemGetAllocationGranularity(&g, &prop, 0));
  at = reserve(32 * g);

  handle = new_vmm(2 * g); /* released before unmapped: ends with the unmapping */
  map(at, 2 * g, handle);
  CU(cuMemRelease(handle));
  CU(cuMemUnmap(at, 2 * g));
  truth_free(VMM, 2 * g);

  handle = new_vmm(g); /* mapped twice, unmapped once: lives on */
  map(at + 2 * g, g, handle);
  map(at + 4 * g, g, handle);
  CU(cuMemRelease(handle));
  CU(cuMemUnmap(at + 2 * g, g));

  handle = new_vmm(3 * g); /* held by a retained handle alone: lives on */
  map(at + 8 * g, 3 * g, handle);
  CU(cuMemRelease(handle));
  CU(cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)(at + 9 * g)));
  CU(cuMemUnmap(at + 8 * g, 3 * g));

  handle = new_vmm(4 * g); /* retained twice, released three times */
  map(at + 12 * g, 4 * g, handle);
  for (int i = 0; i < 2; i++) CU(cuMemRetainAllocationHandle(&again, (void *)(uintptr_t)(at + 12 * g)));
  for (int i = 0; i < 2; i++) CU(cuMemRelease(again));
  CU(cuMemRelease(handle));
  CU(cuMemUnmap(at + 12 * g, 4 * g));
  truth_free(VMM, 4 * g);

  for (int i = 0; i < 3; i++) { /* several mappings, one unmapping */
    parts[i] = new_vmm(g);
    map(at + (16 + i) * g, g, parts[i]);
    if (i) CU(cuMemRelease(parts[i]));
  }
  result = cuMemUnmap(at + 16 * g, 3 * g);
  printf("three mappings unmapped at once: %u\n", result);
  if (result)
    for (int i = 0; i < 3; i++) CU(cuMemUnmap(at + (16 + i) * g, g));
  truth_free(VMM, g);
  truth_free(VMM, g);

  handle = new_vmm(5 * g); /* never mapped, released */
  CU(cuMemRelease(handle));
  truth_free(VMM, 5 * g);
  new_vmm(6 * g); /* never mapped, kept */

  printf("unmapped twice: %u\n", (unsigned)cuMemUnmap(at + 16 * g, 3 * g));
  CU(cuMemUnmap(at + 4 * g, g));
  truth_free(VMM, g);
  CU(cuMemAddressFree(at, 32 * g));
  at = reserve(4 * g);
  map(at, g, parts[0]); /* and again, elsewhere */
  return truth_finish(cu_reset);
}
