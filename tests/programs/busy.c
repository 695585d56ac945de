/* Allocates and frees until somebody ends it, always the same 64 blocks at most; sizes follow their slot. It pauses
 * now and then: whoever copies its trace on a slow machine must be able to keep up. */
#define _DEFAULT_SOURCE
#include "driver.h"
#include <unistd.h>

static CUdeviceptr block[64];

static void turn(unsigned slot) {
    if (block[slot]) {
        MUST(cuMemFree_v2, block[slot]);
        block[slot] = 0;
    } else {
        MUST(cuMemAlloc_v2, &block[slot], 512 * (slot + 1));
    }
}

int main(void) {
    unsigned random = 1;
    alarm(120); /* whoever started it may be gone */
    driver("dlsym");
    start();
    for (unsigned i = 1;; i++) {
        random = random * 1103515245 + 12345;
        turn(random >> 16 & 63);
        if (i % 256 == 0) usleep(1000);
    }
}
