/* A stand-in for PyTorch's libc10.so: the functions that its allocators report to, and a profiler that listens.
 *
 * -DOLD gives the names of PyTorch 1.10 to 1.13. Both libraries together (c10.c and c10_cuda.c) are written anew from
 * what PyTorch's own export and call; nothing of its code is in them. */
#include <stdint.h>
#include <stdio.h>

/* c10::Device: two bytes, by value. */
struct device { int8_t type, index; };

#ifdef OLD
#define USAGE "_ZN3c1027reportMemoryUsageToProfilerEPvlllNS_6DeviceE"
#define OUT_OF_MEMORY "_ZN3c1027reportOutOfMemoryToProfilerElllNS_6DeviceE"
#else
#define USAGE "_ZN3c1027reportMemoryUsageToProfilerEPvlmmNS_6DeviceE"
#define OUT_OF_MEMORY "_ZN3c1027reportOutOfMemoryToProfilerElmmNS_6DeviceE"
#endif
void usage(void *address, int64_t bytes, size_t allocated, size_t reserved, struct device device) __asm__(USAGE);
void out_of_memory(int64_t asked, size_t allocated, size_t reserved, struct device device) __asm__(OUT_OF_MEMORY);

/* Everything that was heard, in a way in which no argument can be mistaken for another. */
static unsigned long long heard = 1, reports;

static void hear(unsigned long long word) { heard = (heard ^ word) * 1099511628211ull; }

void usage(void *address, int64_t bytes, size_t allocated, size_t reserved, struct device device) {
    reports++;
    hear((uintptr_t)address), hear(bytes), hear(allocated), hear(reserved), hear(device.type), hear(device.index);
}

void out_of_memory(int64_t asked, size_t allocated, size_t reserved, struct device device) {
    reports++;
    hear(asked), hear(allocated), hear(reserved), hear(device.type), hear(device.index);
}

unsigned long long c10_heard(void) { return heard; }
unsigned long long c10_reports(void) { return reports; }
