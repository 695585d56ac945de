/* A stand-in for PyTorch's libc10_cuda.so: a caching allocator on the driver API, that reports to libc10.so as PyTorch's does.
 *
 * Blocks are rounded to 512 bytes and cut from segments of 2 MiB (below 1 MiB), 20 MiB, or their own size; freed blocks
 * are merged with their neighbours and kept. torch_mode() chooses, before the first block: "native", "expandable" (one
 * range of addresses a pool, physical memory mapped where it is needed), "async" (cuMemAllocAsync, reports nothing).
 *
 * -DALONE is linked to no libc10.so: only where somebody else has the functions are they called. */
#include "driver.h"
#include <pthread.h>

struct device { int8_t type, index; };

#ifdef OLD
#define USAGE "_ZN3c1027reportMemoryUsageToProfilerEPvlllNS_6DeviceE"
#define OUT_OF_MEMORY "_ZN3c1027reportOutOfMemoryToProfilerElllNS_6DeviceE"
#else
#define USAGE "_ZN3c1027reportMemoryUsageToProfilerEPvlmmNS_6DeviceE"
#define OUT_OF_MEMORY "_ZN3c1027reportOutOfMemoryToProfilerElmmNS_6DeviceE"
#endif
#ifdef ALONE
#define WEAK __attribute__((weak))
static unsigned long long c10_heard(void) { return 0; }
static unsigned long long c10_reports(void) { return 0; }
#else
#define WEAK
unsigned long long c10_heard(void), c10_reports(void);
#endif
WEAK void usage(void *address, int64_t bytes, size_t allocated, size_t reserved, struct device device) __asm__(USAGE);
WEAK void out_of_memory(int64_t asked, size_t allocated, size_t reserved, struct device device) __asm__(OUT_OF_MEMORY);

#define MIB (1ull << 20)
#define UNIT 512
#define PAGE (2 * MIB)
#define RANGE (4096 * MIB)
#define DEVICES 4

struct segment;
struct block {
    CUdeviceptr at;
    size_t bytes;
    int used;
    struct block *next, *before;
    struct segment *segment;
};
struct segment {
    CUdeviceptr at;
    size_t bytes;        /* that memory is behind */
    int pool, small;
    unsigned long long *pages; /* handles of an expandable one */
    struct block *first;
    struct segment *next;
};

static struct {
    CUhandle context;
    size_t allocated, reserved;
    struct segment *segments;
} devices[DEVICES];

/* Everything that was told, in the way in which the listener (c10.c) adds it up. */
static unsigned long long told = 1, reports;

static void tell(unsigned long long word) { told = (told ^ word) * 1099511628211ull; }

static void report(CUdeviceptr at, int64_t bytes, size_t allocated, size_t reserved, struct device device) {
    reports++;
    tell(at), tell(bytes), tell(allocated), tell(reserved), tell(device.type), tell(device.index);
    if (&usage) usage((void *)at, bytes, allocated, reserved, device);
}

static void report_out_of_memory(int64_t asked, size_t allocated, size_t reserved, struct device device) {
    reports++;
    tell(asked), tell(allocated), tell(reserved), tell(device.type), tell(device.index);
    if (&out_of_memory) out_of_memory(asked, allocated, reserved, device);
}

/* Tells the profiler anything, of GPU 0. */
void torch_tell(CUdeviceptr at, int64_t bytes, size_t allocated) { report(at, bytes, allocated, allocated, (struct device){1, 0}); }

/* An allocator of the CPU's reports through the same function. */
void torch_cpu(CUdeviceptr at, int64_t bytes) { report(at, bytes, bytes < 0 ? 0 : bytes, 0, (struct device){0, -1}); }

/* Says whether the profiler heard all that was told: `profiler REPORTS same`. */
void torch_say(void) { printf("profiler %llu %s\n", reports, c10_heard() == told && c10_reports() == reports ? "same" : "different"), fflush(stdout); }

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static enum { NATIVE, EXPANDABLE, ASYNC } mode;

void torch_mode(const char *name) {
    mode = !strcmp(name, "expandable") ? EXPANDABLE : !strcmp(name, "async") ? ASYNC : NATIVE;
    driver("proc");
    MUST(cuInit, 0);
}

static void use(int device) {
    if (!devices[device].context) MUST(cuDevicePrimaryCtxRetain, &devices[device].context, device);
    MUST(cuCtxSetCurrent, devices[device].context);
}

static struct block *new_block(struct segment *segment, CUdeviceptr at, size_t bytes) {
    struct block *block = calloc(1, sizeof *block);
    *block = (struct block){.at = at, .bytes = bytes, .segment = segment};
    return block;
}

/* Maps pages at the end of an expandable segment; 0 if the driver has no more. */
static int grow(struct segment *segment, size_t bytes, int device) {
    CUmemAllocationProp props = {.type = 1, .location = {1, device}};
    CUmemAccessDesc access = {{1, device}, 3};
    for (size_t end = segment->bytes + bytes; segment->bytes < end; segment->bytes += PAGE) {
        unsigned long long *page = &segment->pages[segment->bytes / PAGE];
        if (CU(cuMemCreate)(page, PAGE, &props, 0)) return 0;
        MUST(cuMemMap, segment->at + segment->bytes, PAGE, 0, *page, 0);
        MUST(cuMemSetAccess, segment->at + segment->bytes, PAGE, &access, 1);
        devices[device].reserved += PAGE;
        struct block *last = segment->first;
        while (last && last->next) last = last->next;
        if (last && !last->used)
            last->bytes += PAGE;
        else {
            struct block *block = new_block(segment, segment->at + segment->bytes, PAGE);
            block->before = last;
            if (last) last->next = block; else segment->first = block;
        }
    }
    return 1;
}

static struct segment *new_segment(size_t bytes, int small, int pool, int device) {
    struct segment *segment = calloc(1, sizeof *segment);
    segment->small = small, segment->pool = pool;
    if (mode == EXPANDABLE) {
        segment->pages = calloc(RANGE / PAGE, sizeof *segment->pages);
        MUST(cuMemAddressReserve, &segment->at, RANGE, 0, 0, 0);
    } else {
        size_t whole = small ? 2 * MIB : bytes < 10 * MIB ? 20 * MIB : (bytes + PAGE - 1) / PAGE * PAGE;
        if (CU(cuMemAlloc_v2)(&segment->at, whole)) return free(segment), NULL;
        segment->bytes = whole;
        devices[device].reserved += whole;
        segment->first = new_block(segment, segment->at, whole);
    }
    segment->next = devices[device].segments;
    return devices[device].segments = segment;
}

static struct block *find(size_t bytes, int small, int pool, int device) {
    for (struct segment *segment = devices[device].segments; segment; segment = segment->next)
        if (segment->pool == pool && segment->small == small)
            for (struct block *block = segment->first; block; block = block->next)
                if (!block->used && block->bytes >= bytes) return block;
    return NULL;
}

static struct block *make_room(size_t bytes, int small, int pool, int device) {
    if (mode == EXPANDABLE) {
        struct segment *segment = devices[device].segments;
        while (segment && (segment->pool != pool || segment->small != small)) segment = segment->next;
        if (!segment) segment = new_segment(bytes, small, pool, device);
        if (!grow(segment, (bytes + PAGE - 1) / PAGE * PAGE, device)) return NULL;
    } else if (!new_segment(bytes, small, pool, device))
        return NULL;
    return find(bytes, small, pool, device);
}

static void take_out(struct block *block) {
    if (block->before) block->before->next = block->next; else block->segment->first = block->next;
    if (block->next) block->next->before = block->before;
    free(block);
}

/* Gives pages at the end of an expandable segment, that nobody uses, back. */
static void shrink(struct segment *segment, int device) {
    struct block *last = segment->first;
    while (last && last->next) last = last->next;
    while (last && !last->used && last->bytes >= PAGE) {
        segment->bytes -= PAGE, last->bytes -= PAGE;
        unsigned long long page = segment->pages[segment->bytes / PAGE];
        MUST(cuMemUnmap, segment->at + segment->bytes, PAGE);
        MUST(cuMemRelease, page);
        devices[device].reserved -= PAGE;
    }
    if (last && !last->bytes) take_out(last);
}

static void empty_cache(int device) {
    for (struct segment **place = &devices[device].segments; *place;) {
        struct segment *segment = *place;
        if (segment->pages) {
            shrink(segment, device);
        } else if (!segment->first->used && !segment->first->next) {
            MUST(cuMemFree_v2, segment->at);
            devices[device].reserved -= segment->bytes;
            *place = segment->next;
            free(segment->first), free(segment);
            continue;
        }
        place = &segment->next;
    }
}

/* A block of a private pool, 0 for the ordinary one; 0 if there is no memory. */
CUdeviceptr torch_malloc_in(size_t bytes, int device, int pool) {
    CUdeviceptr at = 0;
    pthread_mutex_lock(&lock);
    use(device);
    if (mode == ASYNC) {
        CUresult result = CU(cuMemAllocAsync)(&at, bytes, NULL);
        pthread_mutex_unlock(&lock);
        return result ? 0 : at;
    }
    size_t size = bytes ? (bytes + UNIT - 1) / UNIT * UNIT : UNIT;
    int small = size <= MIB;
    struct block *block = find(size, small, pool, device);
    if (!block) block = make_room(size, small, pool, device);
    if (!block) empty_cache(device), block = make_room(size, small, pool, device);
    if (!block) {
        report_out_of_memory(size, devices[device].allocated, devices[device].reserved, (struct device){1, device});
    } else {
        if (block->bytes > size) {
            struct block *rest = new_block(block->segment, block->at + size, block->bytes - size);
            rest->before = block, rest->next = block->next;
            if (rest->next) rest->next->before = rest;
            block->next = rest, block->bytes = size;
        }
        block->used = 1, at = block->at;
        devices[device].allocated += size;
        report(at, size, devices[device].allocated, devices[device].reserved, (struct device){1, device});
    }
    pthread_mutex_unlock(&lock);
    return at;
}

CUdeviceptr torch_malloc(size_t bytes, int device) { return torch_malloc_in(bytes, device, 0); }

void torch_free(CUdeviceptr at) {
    pthread_mutex_lock(&lock);
    if (mode == ASYNC) {
        use(0);
        MUST(cuMemFreeAsync, at, NULL);
    }
    for (int device = 0; device < DEVICES && mode != ASYNC; device++)
        for (struct segment *segment = devices[device].segments; segment; segment = segment->next)
            for (struct block *block = segment->first; block; block = block->next)
                if (block->at == at && block->used) {
                    size_t size = block->bytes;
                    devices[device].allocated -= size;
                    block->used = 0;
                    if (block->next && !block->next->used) block->bytes += block->next->bytes, take_out(block->next);
                    if (block->before && !block->before->used) block->before->bytes += block->bytes, take_out(block);
                    report(at, -(int64_t)size, devices[device].allocated, devices[device].reserved, (struct device){1, device});
                    goto done;
                }
done:
    pthread_mutex_unlock(&lock);
}

void torch_empty_cache(int device) {
    pthread_mutex_lock(&lock);
    use(device);
    empty_cache(device);
    pthread_mutex_unlock(&lock);
}

/* Says what is handed out: `block DEVICE ADDRESS BYTES` each, and `device DEVICE ALLOCATED RESERVED`. */
void torch_snapshot(void) {
    pthread_mutex_lock(&lock);
    for (int device = 0; device < DEVICES; device++) {
        for (struct segment *segment = devices[device].segments; segment; segment = segment->next)
            for (struct block *block = segment->first; block; block = block->next)
                if (block->used) printf("block %d %llu %zu\n", device, block->at, block->bytes);
        if (devices[device].context) printf("device %d %zu %zu\n", device, devices[device].allocated, devices[device].reserved);
    }
    fflush(stdout);
    pthread_mutex_unlock(&lock);
}
