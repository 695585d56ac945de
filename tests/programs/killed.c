/* Threads that allocate and free until somebody kills the process, each noting in a shared file what it is about to do and
 * what it has done. Usage: killed FILE THREADS SEED
 *
 * With $TORCH_LIBRARY, tensors of that stand-in take the place of stream-ordered memory. */
#include "driver.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

enum { ALLOC_BEGINS = 1, ALLOC_DONE, FREE_BEGINS, FREE_DONE };
enum { DEVICE, ASYNC, PINNED, KINDS };
enum { ROOM = 60000, LIVE = 100 };
struct note { uint64_t what, kind, size, address; };
struct notes { _Atomic uint64_t count; struct note note[ROOM]; };
static struct notes *all;
static uint64_t seed;
static CUdeviceptr (*torch_malloc)(size_t, int);
static void (*torch_free)(CUdeviceptr);

static void find_torch(const char *path) {
    void *library = dlopen(path, RTLD_NOW);
    void (*torch_mode)(const char *) = library ? dlsym(library, "torch_mode") : NULL;
    if (!torch_mode) exit(71);
    torch_malloc = dlsym(library, "torch_malloc"), torch_free = dlsym(library, "torch_free");
    torch_mode("native");
}

static void note(struct notes *notes, uint64_t what, uint64_t kind, uint64_t size, uint64_t address) {
    uint64_t at = atomic_load_explicit(&notes->count, memory_order_relaxed);
    while (at >= ROOM) pause(); /* only a kill ends this */
    notes->note[at] = (struct note){what, kind, size, address};
    atomic_store_explicit(&notes->count, at + 1, memory_order_release);
}

static void *work(void *argument) {
    uintptr_t number = (uintptr_t)argument;
    struct notes *notes = &all[number];
    uint64_t random = seed * 2654435761u + number * 40503 + 1;
    struct { uint64_t kind, size, address; } live[LIVE];
    unsigned count = 0;
    CUhandle context;
    MUST(cuDevicePrimaryCtxRetain, &context, 0);
    MUST(cuCtxSetCurrent, context);
    for (;;) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        if (count < LIVE && (count == 0 || random % 16 < 9)) {
            uint64_t kind = random / 16 % KINDS, size = 1 + random / 64 % 65536, address = 0;
            if (torch_malloc && kind == ASYNC) size = (size + 511) / 512 * 512;
            void *host = NULL;
            note(notes, ALLOC_BEGINS, kind, size, 0);
            if (kind == DEVICE) MUST(cuMemAlloc_v2, (CUdeviceptr *)&address, size);
            if (kind == ASYNC && torch_malloc) address = torch_malloc(size, 0);
            else if (kind == ASYNC) MUST(cuMemAllocAsync, (CUdeviceptr *)&address, size, NULL);
            if (kind == PINNED) MUST(cuMemHostAlloc, &host, size, 0);
            if (kind == PINNED) address = (uint64_t)host;
            note(notes, ALLOC_DONE, kind, size, address);
            live[count].kind = kind, live[count].size = size, live[count++].address = address;
        } else {
            unsigned at = random / 16 % count;
            uint64_t kind = live[at].kind, size = live[at].size, address = live[at].address;
            note(notes, FREE_BEGINS, kind, size, address);
            if (kind == DEVICE) MUST(cuMemFree_v2, address);
            if (kind == ASYNC && torch_free) torch_free(address);
            else if (kind == ASYNC) MUST(cuMemFreeAsync, address, NULL);
            if (kind == PINNED) MUST(cuMemFreeHost, (void *)address);
            note(notes, FREE_DONE, kind, size, address);
            live[at] = live[--count];
        }
    }
    return NULL;
}

int main(int argc, char **argv) {
    unsigned threads = atoi(argv[2]);
    int fd = open(argv[1], O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, threads * sizeof(struct notes))) return 77;
    all = mmap(NULL, threads * sizeof(struct notes), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    seed = strtoull(argv[3], NULL, 10);
    driver("dlsym");
    start();
    if (getenv("TORCH_LIBRARY")) find_torch(getenv("TORCH_LIBRARY"));
    for (uintptr_t i = 0; i < threads; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, (void *)i)) return 78;
    }
    for (;;) pause();
}
