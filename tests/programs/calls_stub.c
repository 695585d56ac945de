/* Linked to a library that is not libcuda and has a function of the same name. */
#include <stddef.h>
#include <stdio.h>

unsigned cuMemAlloc_v2(void *address, size_t bytes);

int main(void) {
    printf("%u\n", cuMemAlloc_v2(NULL, 8));
    return 0;
}
