// Nanoseconds per pair of allocation and free, and per launch of an empty kernel, as its only line:
// {"async":ns,"async_fast":ns,"sync":ns,"launch":ns}. Of the stream-ordered pairs and the launches the median of many short rounds, and the round that only one in ten is faster than: a shared
// machine has slow phases.
#include <stdlib.h>
#include <time.h>
#include "../support/runtime.h"

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

enum { ROUNDS = 200, PAIRS = 1000 };

__global__ void nothing() {}

int main() {
  const int warm = 20, sync_pairs = 300;
  cudaStream_t stream;
  cudaMemPool_t pool;
  unsigned long long keep = ~0ull;
  void *at;
  static double rounds[ROUNDS];
  double start, sync;
  RT(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  RT(cudaDeviceGetDefaultMemPool(&pool, 0));
  RT(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep));
  for (int round = -warm; round < ROUNDS; round++) {
    start = now();
    for (int i = 0; i < PAIRS; i++) {
      RT(cudaMallocAsync(&at, 4096, stream));
      RT(cudaFreeAsync(at, stream));
    }
    if (round >= 0) rounds[round] = (now() - start) / PAIRS;
  }
  qsort(rounds, ROUNDS, sizeof *rounds, compare);
  RT(cudaStreamSynchronize(stream));
  for (int i = 0; i < sync_pairs + 20; i++) {
    if (i == 20) start = now();
    RT(cudaMalloc(&at, 4 * MIB));
    RT(cudaFree(at));
  }
  sync = (now() - start) / sync_pairs;
  static double launches[ROUNDS];
  for (int round = -warm; round < ROUNDS; round++) {
    start = now();
    for (int i = 0; i < PAIRS / 2; i++) nothing<<<1, 1, 0, stream>>>();
    if (round >= 0) launches[round] = (now() - start) / (PAIRS / 2);
    RT(cudaStreamSynchronize(stream));
  }
  qsort(launches, ROUNDS, sizeof *launches, compare);
  printf("{\"async\":%.1f,\"async_fast\":%.1f,\"sync\":%.1f,\"launch\":%.1f}\n", rounds[ROUNDS / 2], rounds[ROUNDS / 10],
         sync, launches[ROUNDS / 2]);
  return 0;
}
