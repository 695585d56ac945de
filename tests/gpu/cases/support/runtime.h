/* For runtime-API cases: checks, and allocations that count themselves. */
#ifndef RUNTIME_H
#define RUNTIME_H
#include <cuda_runtime.h>
#include "truth.h"

/* Prints what failed and where, and ends the program. */
#define RT(call)                                                                                 \
  do {                                                                                           \
    cudaError_t rt_result = (call);                                                              \
    if (rt_result != cudaSuccess) {                                                              \
      fprintf(stderr, "%s:%d: %s returned %d\n", __FILE__, __LINE__, #call, (int)rt_result); \
      exit(3);                                                                                   \
    }                                                                                            \
  } while (0)

enum { MIB = 1 << 20 };

static inline void rt_reset(void) { RT(cudaDeviceReset()); }

static inline char *rt_device(size_t bytes) {
  void *at;
  RT(cudaMalloc(&at, bytes));
  truth_alloc(DEVICE, bytes);
  return (char *)at;
}
static inline void rt_free(void *at, size_t bytes) {
  RT(cudaFree(at));
  truth_free(DEVICE, bytes);
}
static inline char *rt_async(size_t bytes, cudaStream_t stream) {
  void *at;
  RT(cudaMallocAsync(&at, bytes, stream));
  truth_alloc(ASYNC, bytes);
  return (char *)at;
}
static inline void rt_free_async(void *at, size_t bytes, cudaStream_t stream) {
  RT(cudaFreeAsync(at, stream));
  truth_free(ASYNC, bytes);
}
static inline void *rt_pinned(size_t bytes) {
  void *at;
  RT(cudaMallocHost(&at, bytes));
  truth_alloc(PINNED, bytes);
  return at;
}
#endif
