/* A library that is not libcuda and has a function of the same name. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

unsigned cuMemAlloc_v2(void *address, size_t bytes) { return 4242; }

/* RTLD_DEFAULT and RTLD_NEXT are answered for this library. */
unsigned stub_asks_itself(void) {
    return (dlsym(RTLD_DEFAULT, "cuMemAlloc_v2") != NULL) + 2 * (dlsym(RTLD_NEXT, "cuMemAlloc_v2") != NULL) +
           4 * (dlsym(RTLD_NEXT, "stub_asks_itself") != NULL) + 8 * (dlsym(RTLD_NEXT, "malloc") != NULL);
}
