/* Eight threads allocate and free as fast as they can; at the end the live set is exact. */
#include <pthread.h>
#include "../support/cu.h"

enum { THREADS = 8, STEPS = 20000, SLOTS = 64 };
static CUcontext context;

static void *storm(void *argument) {
  unsigned long long random = (uintptr_t)argument + 1;
  struct { CUdeviceptr at; size_t bytes; int async; } slots[SLOTS];
  CUstream stream;
  memset(slots, 0, sizeof slots);
  CU(cuCtxSetCurrent(context));
  CU(cuStreamCreate(&stream, 1));
  for (int step = 0; step < STEPS; step++) {
    unsigned slot = truth_random(&random) % SLOTS;
    if (!slots[slot].at) {
      slots[slot].bytes = 1 + truth_random(&random) % 65536;
      slots[slot].async = truth_random(&random) % 16 != 0;
      slots[slot].at = slots[slot].async ? new_async(slots[slot].bytes, stream) : new_device(slots[slot].bytes);
    } else {
      if (slots[slot].async) free_async(slots[slot].at, slots[slot].bytes, stream);
      else free_device(slots[slot].at, slots[slot].bytes);
      slots[slot].at = 0;
    }
  }
  CU(cuStreamSynchronize(stream));
  return NULL;
}

int main(void) {
  pthread_t threads[THREADS];
  context = cu_open();
  for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, storm, (void *)i);
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  return truth_finish(cu_reset);
}
