/* Another tool that is preloaded: counts allocations and changes what cuMemGetInfo says, as memory limiters do. With
 * -DHOOK_DLSYM it stands before dlsym too, and finds the real one as HAMi-core does; with -DHIDDEN its functions are
 * found only by that. With -DHOOK_PROC it stands before cuGetProcAddress. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static unsigned allocations, questions;
typedef void *(*find)(void *, const char *);

static void *real(const char *name) {
    static find real_dlsym;
    if (!real_dlsym) real_dlsym = (find)dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");
    if (!real_dlsym) real_dlsym = (find)dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5");
    if (!name) return (void *)real_dlsym;
    void *found = real_dlsym(RTLD_NEXT, name);
    if (found) return found;
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    return driver ? real_dlsym(driver, name) : NULL;
}

#ifdef HIDDEN
#pragma GCC visibility push(hidden)
#endif
unsigned cuMemAlloc_v2(unsigned long long *address, size_t bytes) {
    unsigned (*function)(unsigned long long *, size_t) = real("cuMemAlloc_v2");
    allocations++;
    return function(address, bytes);
}

unsigned cuMemGetInfo_v2(size_t *available, size_t *total) {
    unsigned (*function)(size_t *, size_t *) = real("cuMemGetInfo_v2");
    unsigned result = function(available, total);
    questions++;
    *available = *total = 1234567;
    return result;
}

#ifdef HOOK_PROC
unsigned cuGetProcAddress_v2(const char *name, void **address, int version, unsigned long long flags, unsigned *status) {
    unsigned (*function)(const char *, void **, int, unsigned long long, unsigned *) = real("cuGetProcAddress_v2");
    unsigned result = function(name, address, version, flags, status);
    if (!strcmp(name, "cuMemAlloc")) *address = (void *)cuMemAlloc_v2;
    if (!strcmp(name, "cuMemGetInfo")) *address = (void *)cuMemGetInfo_v2;
    return result;
}
#endif

#ifdef HIDDEN
#pragma GCC visibility pop
#endif

#ifdef HOOK_DLSYM
void *dlsym(void *handle, const char *name) {
    if (handle != RTLD_NEXT && !strcmp(name, "cuMemAlloc_v2")) return (void *)cuMemAlloc_v2;
    if (handle != RTLD_NEXT && !strcmp(name, "cuMemGetInfo_v2")) return (void *)cuMemGetInfo_v2;
#ifdef HOOK_PROC
    if (handle != RTLD_NEXT && !strcmp(name, "cuGetProcAddress_v2")) return (void *)cuGetProcAddress_v2;
#endif
    return ((find)real(NULL))(handle, name);
}
#endif

__attribute__((destructor)) static void say(void) {
    if (allocations || questions) printf("interposer: %u allocations, %u questions\n", allocations, questions), fflush(stdout);
}
