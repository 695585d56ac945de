/* Allocates from unusual places. Usage: stacks WHAT [PLUGIN PLUGIN | KIB] */
#include "driver.h"
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

static void leak(size_t bytes) {
    CUdeviceptr address;
    MUST(cuMemAlloc_v2, &address, bytes);
}

static int recurse(int depth) {
    if (depth == 0) leak(1000);
    else recurse(depth - 1);
    return depth; /* no tail call */
}

static void *thread_body(void *argument) {
    CUhandle context;
    MUST(cuDevicePrimaryCtxRetain, &context, 0);
    MUST(cuCtxSetCurrent, context);
    leak(2000);
    return NULL;
}

static void in_a_thread(size_t size) {
    pthread_t thread;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, size);
    pthread_create(&thread, &attr, thread_body, NULL);
    pthread_join(thread, NULL);
}

static void *plugin_address;
static void plugin(const char *path, int close) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) puts(dlerror()), exit(71);
    CUdeviceptr (*allocates)(void) = (CUdeviceptr (*)(void))dlsym(library, "plugin_allocates");
    allocates();
    if (plugin_address == (void *)allocates) printf("same address\n");
    plugin_address = (void *)allocates;
    if (close) dlclose(library);
}

static void jit(void) {
#ifdef __x86_64__
    /* int f(unsigned long long *address, size_t bytes) { return cuMemAlloc_v2(address, bytes); }, with a frame */
    unsigned char code[] = {0x48, 0x83, 0xec, 0x08, 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xd0, 0x48, 0x83, 0xc4, 0x08, 0xc3};
    void *function = (void *)CU(cuMemAlloc_v2);
    memcpy(code + 6, &function, 8);
    unsigned char *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(memory, code, sizeof code);
    mprotect(memory, 4096, PROT_READ | PROT_EXEC);
    CUdeviceptr address;
    if (((CUresult (*)(CUdeviceptr *, size_t))memory)(&address, 3000)) exit(70);
    munmap(memory, 4096);
#else
    leak(3000);
#endif
}

static ucontext_t outside, inside;
static void fiber_body(void) {
    leak(4000);
    swapcontext(&inside, &outside);
    leak(4000);
}

static void fiber(size_t size) {
    /* Both ends of the stack border on memory that cannot be read. */
    char *memory = mmap(NULL, size + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(memory + 4096, size, PROT_READ | PROT_WRITE);
    getcontext(&inside);
    inside.uc_stack.ss_sp = memory + 4096;
    inside.uc_stack.ss_size = size;
    inside.uc_link = &outside;
    makecontext(&inside, fiber_body, 0);
    swapcontext(&outside, &inside);
    swapcontext(&outside, &inside);
    leak(4000);
}

static void on_signal(int number) { leak(5000); }

static void alternate(size_t size) {
    char *memory = mmap(NULL, size + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(memory + 4096, size, PROT_READ | PROT_WRITE);
    stack_t stack = {.ss_sp = memory + 4096, .ss_size = size};
    sigaltstack(&stack, NULL);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    leak(5000);
}

int main(int argc, char **argv) {
    size_t size = argc == 3 ? atoi(argv[2]) * 1024ul : 0;
    driver("dlsym");
    start();
    if (!strcmp(argv[1], "recursion")) recurse(300);
    if (!strcmp(argv[1], "thread")) in_a_thread(size);
    if (!strcmp(argv[1], "plugins")) plugin(argv[2], 1), plugin(argv[3], 1), plugin(argv[2], 0);
    if (!strcmp(argv[1], "jit")) jit();
    if (!strcmp(argv[1], "fiber")) fiber(size);
    if (!strcmp(argv[1], "alternate")) alternate(size);
    if (!strcmp(argv[1], "plain")) leak(6000);
    return 0;
}
