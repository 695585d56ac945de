/* Allocates and frees at random: every kind of memory, over several devices, contexts and pools, with calls that fail
 * (by VRAMTRACE_SIM_FAIL) and calls that are wrong. It keeps its own account and prints it at the end:
 *   truth KIND DEVICE END BYTES COUNT
 * Usage: random SEED STEPS THREADS. Each thread has memory and contexts of its own; primary contexts come and go only
 * where there is one thread. */
#include "driver.h"
#include <pthread.h>

#define MIB (1ul << 20)
#define MOST 512 /* live items of one thread */
#define DEVICES 3

enum kind { DEVICE, MANAGED, PINNED, REGISTERED, ARRAY, MIPMAP, ASYNC, GRAPH, KINDS };
static const char *names[] = {"device", "managed", "pinned", "registered", "array", "array", "async", "graph"};

struct context {
    CUhandle handle;
    CUhandle green; /* or NULL */
    CUhandle stream;
    int device, uses;
    unsigned id; /* of what memory belongs to: primary contexts have ids of their own */
    int primary;
};

struct item {
    enum kind kind;
    unsigned long long key, size;
    unsigned context; /* what it ends with; 0 nothing */
    int device;
    const char *end; /* NULL: it lives */
};

struct pool { CUhandle handle; int device; };

struct physical {
    unsigned long long handle, size;
    int device, handles, mapped;
    CUdeviceptr at[2];
};

struct executable { CUhandle graph, executable; CUdeviceptr address; int device, live; };

struct world {
    unsigned long long random;
    int alone;
    struct context contexts[8];
    int context_count;
    struct item items[MOST];
    int item_count;
    struct pool pools[6];
    int pool_count;
    struct physical physical[16];
    int physical_count;
    struct executable executables[4];
    int executable_count;
    char *pages; /* to register */
    int page;
    /* sums: kind (vmm last), device (host last), end */
    unsigned long long bytes[KINDS + 1][DEVICES + 1][3], count[KINDS + 1][DEVICES + 1][3];
};

static int devices = DEVICES;
static unsigned last_id;
/* Primary contexts: id while active, else 0; references by retains and green contexts. */
static unsigned primary_id[DEVICES], primary_retains[DEVICES], primary_greens[DEVICES];

static CUresult (*attach)(CUhandle *, unsigned), (*detach)(CUhandle), (*green_create)(CUhandle *, CUhandle, CUdevice, unsigned),
    (*green_destroy)(CUhandle), (*face_of)(CUhandle *, CUhandle), (*resource_of)(CUdevice, void *, int),
    (*describe)(CUhandle *, void *, unsigned);

static unsigned below(struct world *w, unsigned n) {
    w->random ^= w->random << 13, w->random ^= w->random >> 7, w->random ^= w->random << 17;
    return (unsigned)(w->random >> 33) % n;
}

static void wrong(const char *what, int result) { fprintf(stderr, "random: %s answers %d\n", what, result), exit(70); }

static unsigned new_id(void) { return __atomic_add_fetch(&last_id, 1, __ATOMIC_SEQ_CST); }

/* Everything that belongs to a context ends with it. */
static void ended(struct world *w, unsigned context, const char *end) {
    for (int i = 0; i < w->item_count; i++)
        if (w->items[i].context == context && !w->items[i].end) w->items[i].end = end;
}

static void forget_context(struct world *w, int at) { w->contexts[at] = w->contexts[--w->context_count]; }

static void primary_ended(struct world *w, int device) {
    if (!primary_id[device]) return;
    ended(w, primary_id[device], "reset");
    primary_id[device] = 0;
    for (int i = w->context_count; i-- > 0;)
        if (w->contexts[i].primary && w->contexts[i].device == device) forget_context(w, i);
}

static struct context *current(struct world *w) {
    struct context *context = &w->contexts[below(w, w->context_count)];
    MUST(cuCtxSetCurrent, context->handle);
    return context;
}

static void add_context(struct world *w, struct context made) {
    MUST(cuCtxSetCurrent, made.handle);
    MUST(cuStreamCreate, &made.stream, 1);
    w->contexts[w->context_count++] = made;
}

static void create_context(struct world *w, int device) {
    struct context made = {.device = device, .uses = 1};
    if (w->context_count == 8 || CU(cuCtxCreate_v2)(&made.handle, 0, device)) return;
    made.id = new_id();
    add_context(w, made);
}

static void retain_primary(struct world *w, int device) {
    struct context made = {.device = device, .primary = 1};
    if (w->context_count == 8 || CU(cuDevicePrimaryCtxRetain)(&made.handle, device)) return;
    primary_retains[device]++;
    if (primary_id[device]) {
        for (int i = 0; i < w->context_count; i++)
            if (w->contexts[i].primary && w->contexts[i].device == device) return;
    } else {
        primary_id[device] = new_id();
    }
    made.id = primary_id[device];
    add_context(w, made);
}

static void create_green(struct world *w, int device) {
    static unsigned char resource[144];
    struct context made = {.device = device};
    CUhandle description;
    if (w->context_count == 8 || (primary_retains[device] && !primary_id[device])) return;
    if (resource_of(device, resource, 1) || describe(&description, resource, 1)) wrong("a description", 1);
    if (green_create(&made.green, description, device, 1)) return;
    if (face_of(&made.handle, made.green)) wrong("cuCtxFromGreenCtx", 1);
    primary_greens[device]++;
    if (!primary_id[device]) primary_id[device] = new_id();
    made.id = primary_id[device];
    add_context(w, made);
}

static void end_context(struct world *w) {
    if (w->context_count < 3) return;
    int at = below(w, w->context_count), device = w->contexts[at].device;
    struct context context = w->contexts[at];
    if (context.green) {
        if (green_destroy(context.green)) return;
        forget_context(w, at);
        if (!--primary_greens[device] && !primary_retains[device]) primary_ended(w, device);
    } else if (context.primary) {
        if (below(w, 3) || primary_greens[device]) {
            if (CU(cuDevicePrimaryCtxRelease_v2)(device) || --primary_retains[device]) return;
            if (primary_greens[device]) forget_context(w, at); /* not ours to release any more */
            else primary_ended(w, device);
        } else if (!CU(cuDevicePrimaryCtxReset_v2)(device)) {
            primary_ended(w, device); /* its retains stay */
        }
    } else {
        CUhandle again;
        MUST(cuCtxSetCurrent, context.handle);
        switch (below(w, 3)) {
        case 0:
            if (!attach(&again, 0)) w->contexts[at].uses++;
            return;
        case 1:
            if (detach(context.handle) || --w->contexts[at].uses) return;
            break;
        default:
            if (CU(cuCtxDestroy_v2)(context.handle)) return;
        }
        ended(w, context.id, "context");
        forget_context(w, at);
    }
}

/* Room for one more item: those that were ended are counted and make room. */
static void settle(struct world *w, int all) {
    for (int i = w->item_count; i-- > 0;) {
        struct item *item = &w->items[i];
        if (!item->end && !all) continue;
        int end = !item->end ? 0 : !strcmp(item->end, "context") ? 1 : 2;
        w->bytes[item->kind][item->device][end] += item->size;
        w->count[item->kind][item->device][end]++;
        w->items[i] = w->items[--w->item_count];
    }
}

static void add(struct world *w, enum kind kind, unsigned long long key, unsigned long long size, unsigned context, int device) {
    w->items[w->item_count++] = (struct item){kind, key, size, context, device, NULL};
}

static void allocate_something(struct world *w) {
    if (w->item_count == MOST) settle(w, 0);
    if (w->item_count == MOST) return;
    struct context *c = current(w);
    size_t bytes = 1 + below(w, 100000), pitch;
    CUdeviceptr address = 0;
    void *host = NULL;
    CUhandle array;
    CUDA_ARRAY_DESCRIPTOR flat = {1 + below(w, 64), 1 + below(w, 64), FORMAT_FLOAT, 1};
    CUDA_ARRAY3D_DESCRIPTOR deep = {16, 16, 0, FORMAT_FLOAT, 1, 0};
    switch (below(w, 10)) {
    case 0:
        if (!CU(cuMemAllocPitch_v2)(&address, &pitch, 1 + below(w, 2000), 5, 4)) add(w, DEVICE, address, pitch * 5, c->id, c->device);
        break;
    case 1:
        if (!CU(cuMemAllocManaged)(&address, bytes, 1)) add(w, MANAGED, address, bytes, c->id, c->device);
        break;
    case 2:
        if (!CU(cuMemHostAlloc)(&host, bytes, below(w, 4))) add(w, PINNED, (uintptr_t)host, bytes, c->id, DEVICES);
        break;
    case 3:
        if (w->page < 4096 && !CU(cuMemHostRegister_v2)(w->pages + 4096 * w->page, 4096, below(w, 2)))
            add(w, REGISTERED, (uintptr_t)(w->pages + 4096 * w->page++), 4096, c->id, DEVICES);
        break;
    case 4:
        if (!CU(cuArrayCreate_v2)(&array, &flat)) add(w, ARRAY, (uintptr_t)array, flat.width * flat.height * 4, c->id, c->device);
        break;
    case 5:
        if (!CU(cuMipmappedArrayCreate)(&array, &deep, 2)) add(w, MIPMAP, (uintptr_t)array, 4 * (256 + 64), c->id, c->device);
        break;
    case 6: /* nothing, or an error */
        if (CU(cuMemAlloc_v2)(&address, 0) == 0) wrong("cuMemAlloc of 0 bytes", 0);
        if (!CU(cuMemAllocAsync)(&address, 0, NULL) && address) wrong("cuMemAllocAsync of 0 bytes", 0);
        if (!CU(cuMemHostAlloc)(&host, 0, 0) && host) wrong("cuMemHostAlloc of 0 bytes", 0);
        if (CU(cuMemAlloc_v2)(NULL, 100) == 0) wrong("cuMemAlloc to nowhere", 0);
        break;
    default:
        if (!CU(cuMemAlloc_v2)(&address, bytes)) add(w, DEVICE, address, bytes, c->id, c->device);
    }
}

static void allocate_block(struct world *w) {
    if (w->item_count == MOST) return;
    /* The stream says where, whichever context is current. */
    struct context *c = current(w), *of = &w->contexts[below(w, w->context_count)];
    CUhandle stream = below(w, 2) ? NULL : of->stream;
    size_t bytes = 1 + below(w, 300000);
    CUdeviceptr address;
    if (stream) c = of;
    if (below(w, 2) && w->pool_count) {
        struct pool *pool = &w->pools[below(w, w->pool_count)];
        enum kind kind = pool->device == DEVICES ? PINNED : ASYNC;
        if (!CU(cuMemAllocFromPoolAsync)(&address, bytes, pool->handle, stream)) add(w, kind, address, bytes, 0, pool->device);
    } else if (!CU(cuMemAllocAsync)(&address, bytes, stream)) {
        add(w, ASYNC, address, bytes, 0, c->device);
    }
}

static void free_something(struct world *w) {
    if (!w->item_count) return;
    int at = below(w, w->item_count);
    struct item *item = &w->items[at];
    CUresult result;
    if (item->end) return; /* what has its address now is another's */
    current(w); /* any: the address alone says what it is */
    int block = item->kind == ASYNC || item->kind == GRAPH || (item->kind == PINNED && !item->context);
    switch (item->kind) {
    case PINNED:
        result = block ? CU(cuMemFreeAsync)(item->key, NULL) : CU(cuMemFreeHost)((void *)(uintptr_t)item->key);
        break;
    case REGISTERED: result = CU(cuMemHostUnregister)((void *)(uintptr_t)item->key); break;
    case ARRAY: result = CU(cuArrayDestroy)((CUhandle)(uintptr_t)item->key); break;
    case MIPMAP: result = CU(cuMipmappedArrayDestroy)((CUhandle)(uintptr_t)item->key); break;
    case MANAGED: result = CU(cuMemFree_v2)(item->key); break;
    default: result = block || below(w, 3) == 0 ? CU(cuMemFreeAsync)(item->key, NULL) : CU(cuMemFree_v2)(item->key);
    }
    if (result) return;
    if (item->kind == GRAPH)
        for (int i = 0; i < w->executable_count; i++)
            if (w->executables[i].address == item->key) w->executables[i].live = 0;
    w->items[at] = w->items[--w->item_count];
}

static void change_pools(struct world *w) {
    if (below(w, 3) && w->pool_count < 6) {
        int device = below(w, devices + 1);
        CUmemPoolProps props = {.type = 1, .location = {device == devices ? 2 : 1, device == devices ? 0 : device}};
        CUhandle pool;
        if (device < devices && below(w, 3) == 0) {
            MUST(cuDeviceGetDefaultMemPool, &pool, device);
            for (int i = 0; i < w->pool_count; i++)
                if (w->pools[i].handle == pool) return;
        } else if (CU(cuMemPoolCreate)(&pool, &props)) {
            return;
        }
        w->pools[w->pool_count++] = (struct pool){pool, device == devices ? DEVICES : device};
    } else if (w->pool_count) {
        int at = below(w, w->pool_count);
        /* A default pool cannot be destroyed; of others the blocks live on. */
        if (!CU(cuMemPoolDestroy)(w->pools[at].handle)) w->pools[at] = w->pools[--w->pool_count];
    }
}

static void drop_physical(struct world *w, struct physical *p) {
    if (p->handles || p->mapped) return;
    *p = w->physical[--w->physical_count];
}

static void change_physical(struct world *w) {
    if (w->physical_count < 16 && below(w, 3) == 0) {
        struct physical made = {.device = below(w, devices + 1), .size = 2 * MIB * (1 + below(w, 2)), .handles = 1};
        CUmemAllocationProp props = {.type = 1, .location = {made.device == devices ? 2 : 1, made.device == devices ? 0 : made.device}};
        if (made.device == devices) made.device = DEVICES;
        if (!CU(cuMemCreate)(&made.handle, made.size, &props, 0)) w->physical[w->physical_count++] = made;
        return;
    }
    if (!w->physical_count) return;
    struct physical *p = &w->physical[below(w, w->physical_count)];
    CUdeviceptr address;
    unsigned long long again;
    switch (below(w, 4)) {
    case 0:
        if (!p->handles || p->mapped == 2) return;
        MUST(cuMemAddressReserve, &address, p->size, 0, 0, 0);
        if (CU(cuMemMap)(address, p->size, 0, p->handle, 0)) {
            MUST(cuMemAddressFree, address, p->size);
            return;
        }
        p->at[p->mapped++] = address;
        return;
    case 1:
        if (!p->mapped) return;
        address = p->at[p->mapped - 1];
        if (CU(cuMemUnmap)(address, p->size)) return;
        MUST(cuMemAddressFree, address, p->size);
        p->mapped--;
        break;
    case 2:
        if (!p->mapped || p->handles == 3) return;
        if (!CU(cuMemRetainAllocationHandle)(&again, (void *)(uintptr_t)p->at[0])) p->handles++, p->handle = again;
        return;
    default:
        if (!p->handles || CU(cuMemRelease)(p->handle)) return;
        p->handles--;
    }
    drop_physical(w, p);
}

static void change_graphs(struct world *w) {
    current(w);
    if (w->executable_count < 4 && below(w, 2)) {
        int device = below(w, devices);
        CUDA_MEM_ALLOC_NODE_PARAMS params = {.pool = {.type = 1, .location = {1, device}}, .bytes = 65536};
        struct executable made = {.device = device};
        CUhandle node;
        MUST(cuGraphCreate, &made.graph, 0);
        if (CU(cuGraphAddMemAllocNode)(&node, made.graph, NULL, 0, &params)) return;
        if (CU(cuGraphInstantiateWithFlags)(&made.executable, made.graph, 0)) return;
        made.address = params.address;
        w->executables[w->executable_count++] = made;
    } else if (w->executable_count && w->item_count < MOST) {
        struct executable *x = &w->executables[below(w, w->executable_count)];
        if (!CU(cuGraphLaunch)(x->executable, NULL)) {
            if (x->live) wrong("a second launch", 0);
            add(w, GRAPH, x->address, 65536, 0, x->device);
            x->live = 1;
        }
    }
}

static void do_nonsense(struct world *w) {
    current(w);
    CU(cuMemFree_v2)(0);
    CU(cuMemFree_v2)(0x1234500);
    CU(cuMemFreeHost)(w);
    CU(cuMemRelease)(1);
    CU(cuCtxDestroy_v2)(NULL);
    CU(cuMemUnmap)(0x200000, 2 * MIB);
}

static void *live(void *of) {
    struct world *w = of;
    int steps = w->page;
    w->page = 0;
    w->pages = aligned_alloc(4096, 4096 * 4096);
    for (int device = 0; device < devices && device < 2; device++)
        while (w->context_count == device) create_context(w, device);
    for (int step = 0; step < steps; step++) {
        switch (below(w, 24)) {
        case 0: change_pools(w); break;
        case 1: case 2: case 3: change_physical(w); break;
        case 4: change_graphs(w); break;
        case 5: do_nonsense(w); break;
        case 6: create_context(w, below(w, devices)); break;
        case 7: end_context(w); break;
        case 8:
            if (w->alone) retain_primary(w, below(w, devices));
            break;
        case 9:
            if (w->alone) create_green(w, below(w, devices));
            break;
        case 10: case 11: case 12: allocate_block(w); break;
        case 13: case 14: case 15: case 16: case 17: allocate_something(w); break;
        default: free_something(w);
        }
    }
    settle(w, 1);
    for (int i = 0; i < w->physical_count; i++) {
        struct physical *p = &w->physical[i];
        w->bytes[KINDS][p->device][0] += p->size, w->count[KINDS][p->device][0]++;
    }
    return NULL;
}

int main(int argc, char **argv) {
    static struct world worlds[8];
    static const char *ends[] = {"live", "context", "reset"};
    pthread_t threads[8];
    int count = atoi(argv[3]);
    driver("dlsym");
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    attach = dlsym(library, "cuCtxAttach"), detach = dlsym(library, "cuCtxDetach");
    green_create = dlsym(library, "cuGreenCtxCreate"), green_destroy = dlsym(library, "cuGreenCtxDestroy");
    face_of = dlsym(library, "cuCtxFromGreenCtx"), resource_of = dlsym(library, "cuDeviceGetDevResource");
    describe = dlsym(library, "cuDevResourceGenerateDesc");
    MUST(cuInit, 0);
    MUST(cuDeviceGetCount, &devices);
    if (devices > DEVICES) devices = DEVICES;
    for (int i = 0; i < count; i++) {
        worlds[i].random = 88172645463325252ull ^ (strtoull(argv[1], NULL, 10) * 8 + i + 1) * 0x9e3779b97f4a7c15ull;
        worlds[i].alone = count == 1;
        worlds[i].page = atoi(argv[2]);
        if (pthread_create(&threads[i], NULL, live, &worlds[i])) exit(75);
    }
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
    for (int kind = 0; kind <= KINDS; kind++)
        for (int device = 0; device <= DEVICES; device++)
            for (int end = 0; end < 3; end++) {
                unsigned long long bytes = 0, items = 0;
                for (int i = 0; i < count; i++) bytes += worlds[i].bytes[kind][device][end], items += worlds[i].count[kind][device][end];
                const char *name = kind < KINDS ? names[kind] : device == DEVICES ? "pinned" : "vmm";
                if (items) printf("truth %s %d %s %llu %llu\n", name, device == DEVICES ? -1 : device, ends[end], bytes, items);
            }
    return 0;
}
