/* Loads code, makes contexts and sets limits, and measures itself what the driver takes for each:
 *   start BYTES       used on the device before anything but the first context was there
 *   grown PART BYTES  by contexts, code, streams
 *   event BYTES       what single loads and first uses took, in order
 * Between them it allocates and frees, which is none of that. */
#include "driver.h"

static void *also(const char *name) {
    void *found = dlsym(dlopen("libcuda.so.1", RTLD_NOW), name);
    if (!found) fprintf(stderr, "no %s\n", name), exit(71);
    return found;
}
#define ALSO(name, ...) \
    do { \
        CUresult result_ = ((CUresult(*)())also(#name))(__VA_ARGS__); \
        if (result_) fprintf(stderr, "%s:%d: " #name " = %u\n", __FILE__, __LINE__, result_), exit(70); \
    } while (0)

static long long used(void) {
    size_t free, total;
    MUST(cuMemGetInfo_v2, &free, &total);
    return (long long)total - (long long)free;
}

static long long code, contexts, streams, before;
static void begin(void) { before = used(); }
static void grown(long long *part, int is_event) {
    long long growth = used() - before;
    *part += growth;
    if (is_event) printf("event %lld\n", growth);
}

/* A module with a variable of so many bytes. */
static const char *image(int bytes) {
    static char text[4][400];
    static int next;
    char *ptx = text[next++ % 4];
    snprintf(ptx, 400, ".version 8.0\n.target sm_90\n.address_size 64\n.global .align 4 .b8 big[%d];\n.visible .entry empty()\n{ ret; }\n", bytes);
    return ptx;
}

static void launch(CUhandle function) {
    ALSO(cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);
}

int main(void) {
    CUhandle primary, second, module, library, kernel, function;
    driver("dlsym");
    MUST(cuInit, 0);
    MUST(cuDevicePrimaryCtxRetain, &primary, 0); /* not current yet: its device cannot be asked */
    MUST(cuCtxSetCurrent, primary);
    printf("start %lld\n", used());
    CUdeviceptr some = allocate(3000000);
    begin();
    ALSO(cuModuleLoadData, &module, image(5000000));
    grown(&code, 1);
    begin();
    ALSO(cuLibraryLoadData, &library, image(9000000), NULL, NULL, 0, NULL, NULL, 0);
    grown(&code, 1); /* nothing: it is loaded when it is used */
    begin();
    ALSO(cuLibraryGetKernel, &kernel, library, "empty");
    grown(&code, 0);
    MUST(cuMemFree_v2, some);
    begin();
    ALSO(cuKernelGetFunction, &function, kernel);
    grown(&code, 1);
    begin();
    for (int i = 0; i < 1000; i++) launch(function), launch(kernel);
    grown(&code, 0);
    begin();
    for (int i = 0; i < 1000; i++) { /* as programs do that keep nothing */
        ALSO(cuLibraryGetKernel, &kernel, library, "empty");
        ALSO(cuModuleGetFunction, &function, module, "empty");
    }
    grown(&code, 0);
    begin();
    MUST(cuCtxCreate_v2, &second, 0, 0);
    grown(&contexts, 0);
    begin();
    ALSO(cuKernelGetFunction, &function, kernel); /* into this context */
    grown(&code, 0);
    CUhandle stream, other;
    begin();
    MUST(cuStreamCreate, &stream, 1);
    MUST(cuStreamCreate, &other, 0);
    MUST(cuStreamDestroy_v2, stream);
    grown(&streams, 0);
    some = allocate(700000);
    MUST(cuCtxSetCurrent, primary);
    begin();
    ALSO(cuModuleUnload, module);
    grown(&code, 1);
    printf("grown code %lld\ngrown contexts %lld\ngrown streams %lld\n", code, contexts, streams);
    return 0;
}
