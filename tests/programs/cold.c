/* What a block's events take where the program has the caches to itself in between: blocks are handed out and taken back
 * through PyTorch's reporting function (c10.c), one event at a time, and other code and data are used before each.
 *
 *   cold N BLOCKS KIB DEPTH    N events of BLOCKS blocks; KIB KiB of other data (0: no other code either) before each;
 *                              called from DEPTH frames (at most 32)
 *
 * Prints the medians of handing out and of taking back, in ticks of the time-stamp counter. scripts/bench-cold runs it. */
#include "driver.h"
#include <x86intrin.h>

struct device { int8_t type, index; };
void usage(void *address, int64_t bytes, size_t allocated, size_t reserved, struct device device)
    __asm__("_ZN3c1027reportMemoryUsageToProfilerEPvlmmNS_6DeviceE");

static int64_t bytes_of_event;
static void *address_of_event;
static size_t total;

/* Frames of many sizes, each a function of its own: a walk has a rule to find for each. */
typedef void level(void);
static void level_0(void) { usage(address_of_event, bytes_of_event, total, 1ul << 30, (struct device){1, 0}); }
#define LEVEL(n, below, words) \
    __attribute__((noinline)) static void level_##n(void) { volatile int frame[words]; frame[0] = n; level_##below(); frame[1] = n; }
LEVEL(1, 0, 11) LEVEL(2, 1, 18) LEVEL(3, 2, 25) LEVEL(4, 3, 32) LEVEL(5, 4, 39) LEVEL(6, 5, 6) LEVEL(7, 6, 13) LEVEL(8, 7, 20)
LEVEL(9, 8, 27) LEVEL(10, 9, 34) LEVEL(11, 10, 41) LEVEL(12, 11, 8) LEVEL(13, 12, 15) LEVEL(14, 13, 22) LEVEL(15, 14, 29)
LEVEL(16, 15, 36) LEVEL(17, 16, 43) LEVEL(18, 17, 10) LEVEL(19, 18, 17) LEVEL(20, 19, 24) LEVEL(21, 20, 31) LEVEL(22, 21, 38)
LEVEL(23, 22, 5) LEVEL(24, 23, 12) LEVEL(25, 24, 19) LEVEL(26, 25, 26) LEVEL(27, 26, 33) LEVEL(28, 27, 40) LEVEL(29, 28, 7)
LEVEL(30, 29, 14) LEVEL(31, 30, 21) LEVEL(32, 31, 28)
static level *const levels[] = {
    level_0,  level_1,  level_2,  level_3,  level_4,  level_5,  level_6,  level_7,  level_8,  level_9,  level_10,
    level_11, level_12, level_13, level_14, level_15, level_16, level_17, level_18, level_19, level_20, level_21,
    level_22, level_23, level_24, level_25, level_26, level_27, level_28, level_29, level_30, level_31, level_32};

/* 128 KiB of code, with a branch every 32 bytes. */
__attribute__((noinline)) static void other_code(unsigned long bits) {
    __asm__ volatile(".rept 4096\n\tror $7, %0\n\ttest $1, %0\n\tjz 1f\n\tadd $3, %0\n\t1:\n\t.balign 32\n\t.endr\n\t" : "+r"(bits)::"cc");
}

static volatile char *other_data;
static size_t other_bytes;
static void others(unsigned long seed) {
    char sum = 0;
    for (size_t at = 0; at < other_bytes; at += 64) sum += other_data[at];
    other_data[0] = sum;
    if (other_bytes) other_code(seed);
}

static int by_value(const void *a, const void *b) {
    uint64_t one = *(const uint64_t *)a, other = *(const uint64_t *)b;
    return (one > other) - (one < other);
}
static uint64_t median(uint64_t *values, size_t count) {
    qsort(values, count, sizeof *values, by_value);
    return count ? values[count / 2] : 0;
}

int main(int argc, char **argv) {
    if (argc != 5) return 64;
    int events = atoi(argv[1]), blocks = atoi(argv[2]), depth = atoi(argv[4]);
    other_bytes = (size_t)atoi(argv[3]) << 10;
    if (events <= 0 || blocks <= 0 || blocks > 16384 || depth < 0 || depth > 32) return 64;
    driver("dlsym");
    CUhandle context;
    CUdeviceptr segment;
    MUST(cuInit, 0);
    MUST(cuDevicePrimaryCtxRetain, &context, 0);
    MUST(cuCtxSetCurrent, context);
    MUST(cuMemAlloc_v2, &segment, 1ul << 30);
    other_data = calloc(1, other_bytes + 1);
    size_t *held = calloc((size_t)blocks, sizeof *held);
    uint64_t *times[2] = {calloc((size_t)events, 8), calloc((size_t)events, 8)};
    size_t counts[2] = {0, 0};
    unsigned state = 7;
    /* As many more first, for what is done once. */
    for (int event = -events; event < events; event++) {
        size_t *one = &held[rand_r(&state) % (unsigned)blocks];
        size_t bytes = 512 * (1 + rand_r(&state) % 8);
        int back = *one != 0;
        address_of_event = (void *)(segment + (size_t)(one - held) * 65536);
        bytes_of_event = back ? -(int64_t)*one : (int64_t)bytes;
        total += (size_t)bytes_of_event;
        *one = back ? 0 : bytes;
        others((unsigned long)event * 77777);
        unsigned processor;
        uint64_t begun = __rdtscp(&processor);
        _mm_lfence();
        levels[depth]();
        uint64_t ended = __rdtscp(&processor);
        _mm_lfence();
        if (event >= 0) times[back][counts[back]++] = ended - begun;
    }
    printf("%llu %llu\n", (unsigned long long)median(times[0], counts[0]), (unsigned long long)median(times[1], counts[1]));
    return 0;
}
