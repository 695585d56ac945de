/* Holds 512 MiB, and what a context takes, long enough to be seen by nvidia-smi; says what the driver counts as used. */
#include <time.h>
#include "../support/cu.h"

int main(void) {
  size_t free_bytes, total;
  cu_open();
  for (int i = 0; i < 4; i++) new_device(128 * MIB);
  CU(cuMemGetInfo_v2(&free_bytes, &total));
  /* Several samples, also of a card that answers slowly. */
  nanosleep(&(struct timespec){2, 0}, NULL);
  printf("{\"used\":%zu,\"total\":%zu}\n", total - free_bytes, total);
  return truth_finish(cu_reset);
}
