/* A libcudart that says which one it is. -DVERSION=12 */
#include <stddef.h>

unsigned cudaMalloc(void **address, size_t bytes) { return 100 + VERSION; }
unsigned cudaSetDevice(int device) { return 200 + VERSION; }
