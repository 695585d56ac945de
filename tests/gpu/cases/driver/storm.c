/* A storm of cuMemAllocAsync: RATE allocations a second (0: as many as go) for SECONDS, of several sizes from
 * several places, freed at once but for one in a thousand. What is live is exact, whatever is sampled. */
#include <time.h>
#include "../support/cu.h"

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

__attribute__((noinline)) static CUdeviceptr small(CUstream stream, size_t *bytes) {
  return new_async(*bytes = 512, stream);
}
__attribute__((noinline)) static CUdeviceptr middling(CUstream stream, size_t *bytes, unsigned long long n) {
  return new_async(*bytes = 4096 + 512 * (n % 64), stream);
}
__attribute__((noinline)) static CUdeviceptr large(CUstream stream, size_t *bytes) {
  return new_async(*bytes = 1 << 20, stream);
}

int main(int argc, char **argv) {
  double rate = argc > 1 ? atof(argv[1]) : 0, seconds = argc > 2 ? atof(argv[2]) : 8;
  CUstream stream;
  cu_open();
  CU(cuStreamCreate(&stream, 1));
  double begun = now(), elapsed = 0;
  unsigned long long made = 0;
  while (elapsed < seconds) {
    unsigned long long until = rate > 0 ? (unsigned long long)(rate * elapsed) : made + 1000;
    for (int burst = 0; made < until && burst < 1000; burst++, made++) {
      size_t bytes;
      unsigned kind = made % 8;
      CUdeviceptr at = kind < 5 ? small(stream, &bytes) : kind < 7 ? middling(stream, &bytes, made) : large(stream, &bytes);
      if (made % 1000 != 13) free_async(at, bytes, stream);
    }
    if (rate > 0 && made >= until) nanosleep(&(struct timespec){0, 200000}, NULL);
    elapsed = now() - begun;
  }
  CU(cuStreamSynchronize(stream));
  printf("{\"allocations\":%llu,\"seconds\":%.3f}\n", made, elapsed);
  return truth_finish(cu_reset);
}
