/* Page-locked host memory, allocated and registered. */
#include "../support/cu.h"

int main(void) {
  void *at[16], *own;
  cu_open();
  for (unsigned i = 0; i < 16; i++) at[i] = new_pinned(4096 * i + 100, i % 8);
  for (unsigned i = 0; i < 16; i += 2) free_pinned(at[i], 4096 * i + 100);
  for (unsigned i = 0; i < 4; i++) {
    CU(cuMemAllocHost_v2(&own, 10000 + i));
    truth_alloc(PINNED, 10000 + i);
  }
  free_pinned(own, 10003);
  for (unsigned i = 1; i <= 4; i++) {
    size_t bytes = (size_t)i * 65536;
    if (posix_memalign(&own, 4096, bytes)) return 3;
    memset(own, 1, bytes);
    CU(cuMemHostRegister_v2(own, bytes, i % 4));
    truth_alloc(REGISTERED, bytes);
    printf("registered twice %u\n", (unsigned)cuMemHostRegister_v2(own, bytes, 0));
    if (i % 2) {
      CU(cuMemHostUnregister(own));
      truth_free(REGISTERED, bytes);
    }
  }
  return truth_finish(cu_reset);
}
