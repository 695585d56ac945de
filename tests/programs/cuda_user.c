/* A library that calls the runtime that it is linked to, in different ways. -DUSER=a names its functions. */
#include <stddef.h>
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(function) JOIN(USER, function)

unsigned cudaMalloc(void **address, size_t bytes);
unsigned cudaSetDevice(int device);

unsigned NAME(calls)(void) {
    volatile unsigned result = cudaMalloc(NULL, 8) + 1000 * cudaSetDevice(0);
    return result;
}

/* The return address is the caller's. */
__attribute__((optimize("optimize-sibling-calls"))) unsigned NAME(jumps)(void) { return cudaMalloc(NULL, 8); }

/* What the loader put in its table. */
void *NAME(pointer)(void) { return (void *)cudaMalloc; }
