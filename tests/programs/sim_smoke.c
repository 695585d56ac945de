/* What only the simulated driver can be asked: injected failures, small devices, several devices,
 * a process that dies while it exports, threads. Prints one line per observation.
 *
 *   cc -std=gnu11 sim_smoke.c -ldl -lpthread -o sim_smoke && ./sim_smoke MODE
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef uint64_t ptr;
typedef struct { char bytes[64]; } Opaque;

#define FUNCTIONS(X) \
  X(cuInit, (unsigned)) X(cuDeviceGetCount, (int *)) X(cuDeviceTotalMem_v2, (size_t *, int)) \
  X(cuCtxCreate_v2, (void **, unsigned, int)) X(cuCtxSetCurrent, (void *)) \
  X(cuMemGetInfo_v2, (size_t *, size_t *)) X(cuMemAlloc_v2, (ptr *, size_t)) \
  X(cuMemAlloc, (unsigned *, unsigned)) X(cuMemFree, (unsigned)) \
  X(cuMemFree_v2, (ptr)) X(cuMemAllocAsync, (ptr *, size_t, void *)) \
  X(cuMemFreeAsync, (ptr, void *)) X(cuMemcpyHtoD_v2, (ptr, const void *, size_t)) \
  X(cuMemcpyDtoH_v2, (void *, ptr, size_t)) X(cuMemsetD32_v2, (ptr, unsigned, size_t)) \
  X(cuIpcGetMemHandle, (Opaque *, ptr)) X(cuIpcOpenMemHandle_v2, (ptr *, Opaque, unsigned)) \
  X(cuStreamSynchronize, (void *)) X(cuMemAddressFree, (ptr, size_t)) \
  X(cuMemAddressReserve, (ptr *, size_t, size_t, ptr, unsigned long long))
#define DECLARE(name, args) static int(*name) args;
FUNCTIONS(DECLARE)

static void *ctx;

static void load(void) {
  void *driver = dlopen("libcuda.so.1", RTLD_NOW);
  if (!driver) { printf("no driver: %s\n", dlerror()); exit(3); }
#define RESOLVE(name, args) \
  *(void **)&name = dlsym(driver, #name); \
  if (!name) { printf("missing export: %s\n", #name); exit(3); }
  FUNCTIONS(RESOLVE)
}

static void begin(void) {
  int r = cuInit(0);
  if (!r) r = cuCtxCreate_v2(&ctx, 0, 0);
  if (r) { printf("begin: %d\n", r); exit(3); }
}

/* The codes of ten allocations, and one free. */
static void run_fail(void) {
  begin();
  for (int i = 0; i < 10; i++) {
    ptr p = 0;
    printf("%d ", cuMemAlloc_v2(&p, 64));
  }
  printf("\nfree %d\n", cuMemFree_v2(0));
}

/* Fills a device: linear memory until there is no more, and all of it back. */
static void run_oom(void) {
  begin();
  size_t before, total, after, n = 0;
  static ptr p[4096];
  cuMemGetInfo_v2(&before, &total);
  printf("context costs: %s\n", before < total ? "yes" : "no");
  while (n < 4096 && cuMemAlloc_v2(&p[n], 1 << 20) == 0) n++;
  ptr q;
  cuMemGetInfo_v2(&after, &total);
  printf("full: %d, %s left, all fit: %s\n", cuMemAlloc_v2(&q, 4 << 20),
         after < (2 << 20) ? "nothing" : "much", n == before >> 20 ? "yes" : "no");
  printf("async: %d\n", cuMemAllocAsync(&q, 1 << 20, 0));
  while (n) cuMemFree_v2(p[--n]);
  cuMemGetInfo_v2(&after, &total);
  printf("back: %s, then %d\n", after == before ? "yes" : "no", cuMemAlloc_v2(&q, after));
}

static void run_devices(void) {
  cuInit(0);
  int n = 0;
  size_t bytes = 0;
  cuDeviceGetCount(&n);
  cuDeviceTotalMem_v2(&bytes, n - 1);
  printf("devices %d, MiB each %zu\n", n, bytes >> 20);
  printf("one more: %d\n", cuDeviceTotalMem_v2(&bytes, n));
  for (int d = 0; d < n; d++) {
    ptr p = 0;
    size_t f, t;
    cuCtxCreate_v2(&ctx, 0, d);
    cuMemAlloc_v2(&p, 64 << 20);
    cuMemGetInfo_v2(&f, &t);
    printf("used on %d: %s\n", d, f < t - (64 << 20) ? "yes" : "no");
  }
}

/* A handle whose process is gone, and one whose memory is freed. */
static void run_stale(void) {
  int up[2], down[2];
  if (pipe(up) || pipe(down)) exit(3);
  pid_t pid = fork();
  if (pid == 0) {
    begin();
    ptr a = 0, b = 0;
    Opaque h[2];
    cuMemAlloc_v2(&a, 4096);
    cuMemAlloc_v2(&b, 4096);
    cuIpcGetMemHandle(&h[0], a);
    cuIpcGetMemHandle(&h[1], b);
    cuMemFree_v2(b);
    if (write(up[1], h, sizeof h) != sizeof h) _exit(1);
    pause();
  }
  begin();
  Opaque h[2];
  ptr p = 0, q = 0;
  if (read(up[0], h, sizeof h) != sizeof h) exit(3);
  printf("live: %d\n", cuIpcOpenMemHandle_v2(&p, h[0], 1));
  printf("freed: %d\n", cuIpcOpenMemHandle_v2(&q, h[1], 1));
  kill(pid, SIGKILL);
  waitpid(pid, 0, 0);
  printf("process gone: %d\n", cuIpcOpenMemHandle_v2(&q, h[1], 1));
  printf("opened before: %d\n", cuMemsetD32_v2(p, 7, 4));
}

/* Threads that allocate, write, check and free. */
static void *work(void *seed) {
  unsigned s = (unsigned)(uintptr_t)seed;
  static const size_t sizes[] = {64, 512, 5000, 70000, 3 << 20};
  long bad = 0;
  cuCtxSetCurrent(ctx);
  for (int i = 0; i < 20000; i++) {
    size_t n = sizes[rand_r(&s) % 5];
    ptr p = 0;
    int async = rand_r(&s) % 2;
    unsigned mark = rand_r(&s), got = 0;
    bad += (async ? cuMemAllocAsync(&p, n, 0) : cuMemAlloc_v2(&p, n)) != 0;
    cuMemsetD32_v2(p, mark, 16);
    cuMemcpyDtoH_v2(&got, p + 60, 4);
    bad += got != mark;
    bad += (async ? cuMemFreeAsync(p, 0) : cuMemFree_v2(p)) != 0;
    if (i % 1000 == 0) bad += cuStreamSynchronize(0) != 0;
  }
  return (void *)(uintptr_t)bad;
}
static void run_threads(void) {
  begin();
  pthread_t t[8];
  long bad = 0;
  size_t before, after, total;
  cuMemGetInfo_v2(&before, &total);
  for (int i = 0; i < 8; i++) pthread_create(&t[i], 0, work, (void *)(uintptr_t)(i + 1));
  for (int i = 0; i < 8; i++) {
    void *r;
    pthread_join(t[i], &r);
    bad += (long)(uintptr_t)r;
  }
  cuStreamSynchronize(0);
  cuMemGetInfo_v2(&after, &total);
  printf("bad %ld, memory back: %s\n", bad, before == after ? "yes" : "no");
}

/* Addresses are reserved while other threads map and unmap memory of their own. */
static int reserved;
static void *map(void *unused) {
  (void)unused;
  while (!__atomic_load_n(&reserved, __ATOMIC_ACQUIRE))
    for (size_t size = 1 << 20; size <= 8 << 20; size <<= 1) {
      void *at = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (at != MAP_FAILED) munmap(at, size);
    }
  return NULL;
}
static void run_reserve(void) {
  begin();
  pthread_t t[3];
  int bad = 0;
  for (int i = 0; i < 3; i++) pthread_create(&t[i], 0, map, NULL);
  for (int i = 0; i < 20000; i++) {
    size_t size = (size_t)(1 + i % 4) << 21, alignment = (size_t)(i % 3) << 22;
    ptr p = 1;
    int r = cuMemAddressReserve(&p, size, alignment, 0, 0);
    bad += r || p % (alignment ? alignment : 2 << 20) || cuMemAddressFree(p, size);
  }
  __atomic_store_n(&reserved, 1, __ATOMIC_RELEASE);
  for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
  printf("bad %d\n", bad);
}

/* The v1 functions and their 32-bit addresses. */
static void run_v1(void) {
  begin();
  unsigned p = 0, q = 0, value = 0;
  printf("alloc %d\n", cuMemAlloc(&p, 4096));
  cuMemsetD32_v2(p, 99, 16);
  cuMemcpyDtoH_v2(&value, p, 4);
  int first = cuMemFree(p);
  printf("holds %u, free %d, again %d\n", value, first, cuMemFree(p));
  cuMemAlloc(&q, 4096);
  printf("reused %s\n", p == q ? "yes" : "no");
}

/* Nanoseconds of an allocation and free pair: for people, not for tests. */
static void run_speed(void) {
  begin();
  struct timespec a, b;
  enum { N = 1000000 };
  ptr p;
  clock_gettime(CLOCK_MONOTONIC, &a);
  for (int i = 0; i < N; i++) { cuMemAlloc_v2(&p, 1024); cuMemFree_v2(p); }
  clock_gettime(CLOCK_MONOTONIC, &b);
  printf("linear pair %ld ns\n", ((b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec) / N);
  clock_gettime(CLOCK_MONOTONIC, &a);
  for (int i = 0; i < N; i++) { cuMemAllocAsync(&p, 1024, 0); cuMemFreeAsync(p, 0); }
  clock_gettime(CLOCK_MONOTONIC, &b);
  printf("async pair %ld ns\n", ((b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec) / N);
}

int main(int argc, char **argv) {
  static const struct { const char *name; void (*run)(void); } modes[] = {
      {"fail", run_fail}, {"oom", run_oom}, {"devices", run_devices}, {"stale", run_stale},
      {"threads", run_threads}, {"reserve", run_reserve}, {"v1", run_v1}, {"speed", run_speed},
  };
  alarm(60);
  for (unsigned i = 0; argc > 1 && i < sizeof modes / sizeof *modes; i++) {
    if (strcmp(argv[1], modes[i].name)) continue;
    load();
    modes[i].run();
    return 0;
  }
  fprintf(stderr, "modes: fail oom devices stale threads reserve v1 speed\n");
  return 2;
}
