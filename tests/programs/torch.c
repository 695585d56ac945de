/* Uses the stand-in for PyTorch's allocator. Usage: torch SCOPE MODE WHAT [NUMBER]
 *
 * SCOPE is how the libraries are loaded: `linked` (with -DWITH_TORCH), `local` or `global` (dlopen of $TORCH_LIBRARY). */
#include "driver.h"
#include <pthread.h>
#include <sys/wait.h>

#define MIB (1ul << 20)

#define FUNCTIONS_OF_TORCH(F) \
    F(void, mode, (const char *)) \
    F(CUdeviceptr, malloc, (size_t, int)) \
    F(CUdeviceptr, malloc_in, (size_t, int, int)) \
    F(void, free, (CUdeviceptr)) \
    F(void, empty_cache, (int)) \
    F(void, snapshot, (void)) \
    F(void, say, (void)) \
    F(void, cpu, (CUdeviceptr, int64_t)) \
    F(void, tell, (CUdeviceptr, int64_t, size_t))

#ifdef WITH_TORCH
#define F(type, name, parameters) extern type torch_##name parameters;
FUNCTIONS_OF_TORCH(F)
#undef F
static void load(const char *scope, const char *path) {}
#else
#define F(type, name, parameters) static type(*torch_##name) parameters;
FUNCTIONS_OF_TORCH(F)
#undef F
static void load(const char *scope, const char *path) {
    void *library = dlopen(path, RTLD_NOW | (strcmp(scope, "global") ? RTLD_LOCAL : RTLD_GLOBAL));
    if (!library) fprintf(stderr, "%s\n", dlerror()), exit(71);
#define F(type, name, parameters) \
    if (!(torch_##name = (type(*) parameters)dlsym(library, "torch_" #name))) exit(71);
    FUNCTIONS_OF_TORCH(F)
#undef F
}
#endif

static int async;
/* With cudaMallocAsync the driver's blocks are the tensors, of the bytes asked for. */
#define stays(bytes, count) \
    left(async ? "async" : "torch", async ? "cuMemAllocAsync" : "", (async ? (bytes) : ((bytes) + 511) / 512 * 512) * (count), count)

/* What stays: in three places, of small and large segments, a private pool, and another device. */
static volatile int three = 3; /* no loop that is unrolled: one place is one return address */
static void tensors(void) {
    for (int i = 0; i < three; i++) torch_malloc(1000, 0);
    stays(1000, 3);
}
static void private_pool(void) {
    torch_malloc_in(3 * MIB, 0, 7);
    stays(3 * MIB, 1);
}
static void other_device(void) {
    torch_malloc(30 * MIB, 1);
    stays(30 * MIB, 1);
}
/* Freed blocks are handed out again, whole and in parts. */
static void reused(void) {
    CUdeviceptr large = torch_malloc(8 * MIB, 0), next = torch_malloc(2 * MIB, 0);
    torch_free(large);
    CUdeviceptr part = torch_malloc(3 * MIB, 0), other = torch_malloc(MIB + 1, 0);
    torch_free(next), torch_free(part);
    stays(MIB + 1, 1);
    if (!other) exit(69);
}
/* Memory that PyTorch does not manage is the program's own. */
static void beside(void) {
    CUdeviceptr own;
    MUST(cuMemAlloc_v2, &own, 5 * MIB);
    left("device", "cuMemAlloc_v2", 5 * MIB, 1);
}
static void some(void) {
    torch_cpu(4096, 100);
    tensors(), private_pool(), other_device(), reused();
    driver("dlsym");
    beside();
    torch_cpu(4096, -100);
}

/* A third of what was there is freed in between. */
static void *random_steps(void *seed) {
    unsigned state = (unsigned)(uintptr_t)seed;
    CUdeviceptr kept[64] = {0};
    for (int step = 0; step < 3000; step++) {
        int at = rand_r(&state) % 64, device = rand_r(&state) % 2, pool = rand_r(&state) % 8 ? 0 : 3;
        size_t bytes = rand_r(&state) % 5 ? rand_r(&state) % 30000 : rand_r(&state) % (3 * MIB);
        if (kept[at]) torch_free(kept[at]), kept[at] = 0;
        if (rand_r(&state) % 3) kept[at] = torch_malloc_in(bytes, device, pool);
        if (rand_r(&state) % 200 == 0) torch_empty_cache(device);
    }
    return NULL;
}

static void threads(int number) {
    pthread_t thread[8];
    for (int i = 0; i < 8; i++) pthread_create(&thread[i], NULL, random_steps, (void *)(uintptr_t)(number * 8 + i + 1));
    for (int i = 0; i < 8; i++) pthread_join(thread[i], NULL);
}

/* More than the device has: the cache is given back first, then PyTorch gives up. */
static void out_of_memory(void) {
    CUdeviceptr cached = torch_malloc(40 * MIB, 0);
    torch_malloc(30 * MIB, 0);
    torch_free(cached);
    printf("asked %d\n", torch_malloc(900ul << 30, 0) != 0);
}

/* As a program ends whose objects free their memory last. */
static CUdeviceptr last[3];
static void free_last(void) {
    for (int i = 0; i < 3; i++) torch_free(last[i]);
}
static void at_exit(void) {
    atexit(free_last);
    for (int i = 0; i < three; i++) last[i] = torch_malloc(5000, 0);
}

/* All that it holds goes with the device's context. */
static void reset(void) {
    torch_malloc(5000, 0), torch_malloc(7000, 1);
    driver("dlsym");
    MUST(cuDevicePrimaryCtxReset_v2, 0);
}

/* Two copies of the libraries: each has a profiler of its own. */
static void two_copies(const char *mode) {
    tensors();
    torch_say();
    load("local", getenv("TORCH_LIBRARY_TOO"));
    torch_mode(mode);
    private_pool(), other_device();
}

/* What a child of fork frees of its parent's is nobody's business. */
static void forks(void) {
    CUdeviceptr parents = torch_malloc(5000, 0);
    tensors();
    fflush(stdout);
    pid_t child = fork();
    if (!child) torch_free(parents), _exit(0);
    int status;
    waitpid(child, &status, 0);
    torch_free(parents);
    printf("child %d\n", status);
}

/* A block that was there before the first that was seen is freed, another is not. */
static void before_us(void) {
    tensors();
    torch_tell(0x5000000000, -512, 3 * 1024 + 2048);
}

/* Tensors come and go until somebody ends the program. */
static void storm(void) {
    CUdeviceptr kept[200] = {0};
    for (unsigned step = 0, state = 1;; step++) {
        unsigned at = rand_r(&state) % 200;
        if (kept[at]) torch_free(kept[at]);
        kept[at] = torch_malloc(rand_r(&state) % 30000, step % 2);
    }
}

/* Counts searches in the loader's list of modules (counts_searches.c). */
static void searches(void) {
    unsigned (*asked)(void) = (unsigned (*)(void))dlsym(RTLD_DEFAULT, "searches");
    unsigned before = 0;
    for (int i = 0; i < 1000; i++) {
        torch_cpu(4096, 100); /* one place */
        if (i == 10) before = asked();
    }
    printf("searches %u later %u\n", before, asked() - before);
}

static void no_cache(void) {
    tensors();
    torch_free(torch_malloc(3 * MIB, 0));
    torch_empty_cache(0);
}

int main(int argc, char **argv) {
    const char *what = argv[3];
    load(argv[1], getenv("TORCH_LIBRARY"));
    async = !strcmp(argv[2], "async");
    torch_mode(argv[2]);
    if (!strcmp(what, "some")) some();
    if (!strcmp(what, "threads")) threads(atoi(argv[4]));
    if (!strcmp(what, "out-of-memory")) out_of_memory();
    if (!strcmp(what, "at-exit")) at_exit();
    if (!strcmp(what, "reset")) reset();
    if (!strcmp(what, "no-cache")) no_cache();
    if (!strcmp(what, "two-copies")) two_copies(argv[2]);
    if (!strcmp(what, "forks")) forks();
    if (!strcmp(what, "before-us")) before_us();
    if (!strcmp(what, "storm")) storm();
    if (!strcmp(what, "searches")) searches();
    torch_snapshot();
    torch_say();
    return 0;
}
