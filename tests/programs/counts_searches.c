/* Preloaded: counts how often the loader's list of modules is asked for, and says so by searches(). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>

static unsigned asked;

int dl_iterate_phdr(int (*callback)(struct dl_phdr_info *, size_t, void *), void *data) {
    static int (*next)(int (*)(struct dl_phdr_info *, size_t, void *), void *);
    if (!next) next = (int (*)(int (*)(struct dl_phdr_info *, size_t, void *), void *))dlsym(RTLD_NEXT, "dl_iterate_phdr");
    __atomic_fetch_add(&asked, 1, __ATOMIC_RELAXED);
    return next(callback, data);
}

unsigned searches(void) { return asked; }
