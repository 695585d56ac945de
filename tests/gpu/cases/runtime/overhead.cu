// Nanoseconds per pair of allocation and free: {"async":ns,"sync":ns} as its only line.
#include <time.h>
#include "../support/runtime.h"

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

int main() {
  const int warm = 20000, pairs = 100000, sync_pairs = 300;
  cudaStream_t stream;
  cudaMemPool_t pool;
  unsigned long long keep = ~0ull;
  void *at;
  double start, async, sync;
  RT(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  RT(cudaDeviceGetDefaultMemPool(&pool, 0));
  RT(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep));
  for (int i = 0; i < warm + pairs; i++) {
    if (i == warm) start = now();
    RT(cudaMallocAsync(&at, 4096, stream));
    RT(cudaFreeAsync(at, stream));
  }
  async = (now() - start) / pairs;
  RT(cudaStreamSynchronize(stream));
  for (int i = 0; i < sync_pairs + 20; i++) {
    if (i == 20) start = now();
    RT(cudaMalloc(&at, 4 * MIB));
    RT(cudaFree(at));
  }
  sync = (now() - start) / sync_pairs;
  printf("{\"async\":%.1f,\"sync\":%.1f}\n", async, sync);
  return 0;
}
