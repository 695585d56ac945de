/* Four threads allocate and free until somebody kills the process. What each is about to do, and has
 * done, is in a shared file (the argument): THREADS × SLOTS of {bytes, state}. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include "../support/cu.h"

enum { THREADS = 4, SLOTS = 64 };
enum { EMPTY, ALLOCATING, KEPT, FREEING };
struct slot { unsigned long long bytes, state; };

static struct slot (*shared)[SLOTS];
static CUcontext context;

static void now(struct slot *slot, unsigned long long state) { __atomic_store_n(&slot->state, state, __ATOMIC_SEQ_CST); }

static void *storm(void *argument) {
  unsigned long long random = (uintptr_t)argument + 1 + (unsigned long long)getpid() * 97;
  struct slot *slots = shared[(uintptr_t)argument];
  CUdeviceptr at[SLOTS];
  CUstream stream;
  CU(cuCtxSetCurrent(context));
  CU(cuStreamCreate(&stream, 1));
  for (;;) {
    unsigned i = truth_random(&random) % SLOTS;
    int async = i % 8 != 0;
    if (slots[i].state == EMPTY) {
      slots[i].bytes = 1 + truth_random(&random) % 65536;
      now(&slots[i], ALLOCATING);
      if (async) CU(cuMemAllocAsync(&at[i], slots[i].bytes, stream));
      else CU(cuMemAlloc_v2(&at[i], slots[i].bytes));
      now(&slots[i], KEPT);
    } else {
      now(&slots[i], FREEING);
      if (async) CU(cuMemFreeAsync(at[i], stream));
      else CU(cuMemFree_v2(at[i]));
      now(&slots[i], EMPTY);
    }
  }
  return NULL;
}

int main(int argc, char **argv) {
  pthread_t threads[THREADS];
  int file = argc > 1 ? open(argv[1], O_RDWR) : -1;
  shared = (struct slot(*)[SLOTS])mmap(NULL, sizeof(struct slot[THREADS][SLOTS]), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (file < 0 || (void *)shared == MAP_FAILED) return 3;
  context = cu_open();
  for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, storm, (void *)i);
  pthread_join(threads[0], NULL);
  return 3;
}
