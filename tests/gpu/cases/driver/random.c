/* Five thousand allocations and frees of all kinds, in an order that is random but always the same. */
#include "../support/cu.h"

enum { STEPS = 5000, SLOTS = 256 };

int main(void) {
  struct { int kind; size_t bytes; void *host; CUdeviceptr at; CUarray array; CUmemGenericAllocationHandle handle; } slots[SLOTS];
  static const unsigned char mix[16] = {DEVICE, DEVICE, DEVICE, DEVICE, ASYNC, ASYNC, ASYNC, ASYNC, ASYNC, ASYNC, ASYNC, PINNED, PINNED, ARRAY, VMM, MANAGED};
  unsigned long long random = 42;
  CUmemAllocationProp prop;
  size_t granularity;
  cu_open();
  prop = cu_on_device();
  CU(cuMemGetAllocationGranularity(&granularity, &prop, 0));
  memset(slots, -1, sizeof slots);
  for (int step = 0; step < STEPS; step++) {
    unsigned i = truth_random(&random) % SLOTS;
    if (slots[i].kind < 0) {
      unsigned size = truth_random(&random);
      CUDA_ARRAY_DESCRIPTOR flat = {1 + size % 200, size % 50, FORMAT_FLOAT, 2};
      slots[i].kind = mix[truth_random(&random) % 16];
      slots[i].bytes = 1 + size % 100000;
      switch (slots[i].kind) {
        case DEVICE: slots[i].at = new_device(slots[i].bytes); break;
        case ASYNC: slots[i].at = new_async(slots[i].bytes, NULL); break;
        case MANAGED: slots[i].at = new_managed(slots[i].bytes); break;
        case PINNED: slots[i].host = new_pinned(slots[i].bytes, 0); break;
        case VMM: slots[i].handle = new_vmm(slots[i].bytes = granularity); break;
        default:
          CU(cuArrayCreate_v2(&slots[i].array, &flat));
          truth_alloc(ARRAY, slots[i].bytes = flat.Width * (flat.Height ? flat.Height : 1) * 8);
      }
      continue;
    }
    switch (slots[i].kind) {
      case PINNED: CU(cuMemFreeHost(slots[i].host)); break;
      case VMM: CU(cuMemRelease(slots[i].handle)); break;
      case ARRAY: CU(cuArrayDestroy(slots[i].array)); break;
      case ASYNC:
        if (step % 4) {
          CU(cuMemFreeAsync(slots[i].at, NULL));
          break;
        } /* fall through */
      default: CU(cuMemFree_v2(slots[i].at));
    }
    truth_free((enum truth_kind)slots[i].kind, slots[i].bytes);
    slots[i].kind = -1;
  }
  CU(cuCtxSynchronize());
  return truth_finish(cu_reset);
}
