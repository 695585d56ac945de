/* What processes do. Usage: process WHAT
 *   fork-before    the child uses CUDA, the parent too
 *   fork-after     the parent uses CUDA; the child frees nothing, calls the driver (which fails there) and leaves
 *   fork-exec      fork after the first use, then exec of this program, which leaks by itself
 *   vfork-exec     the same by vfork
 *   exec           exec of this program after a leak
 *   clone          fork-after by the raw system call, _Fork fork-after by _Fork
 *   threads N      N threads, storms of allocations; each leaks what it says
 *   leaving N      threads that allocate and end while others allocate
 *   exit, return, _exit, abort, quick_exit, signal: ends of a process that frees its global block in a destructor
 *   atexit         frees in an exit handler
 *   closes         closes every descriptor */
#include "driver.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static CUdeviceptr global_block;
static const char *what;

static void leak(size_t bytes) {
    CUdeviceptr address;
    MUST(cuMemAlloc_v2, &address, bytes);
    left("device", "cuMemAlloc_v2", bytes, 1);
}

static void hold_global(void) {
    MUST(cuMemAlloc_v2, &global_block, 2222);
    left("device", "cuMemAlloc_v2", 2222, 1);
}

static void free_global(void) {
    if (global_block) CU(cuMemFree_v2)(global_block);
    global_block = 0;
}

__attribute__((destructor)) static void at_the_very_end(void) {
    if (what && strcmp(what, "atexit")) free_global();
}

static int wait_for(pid_t child) {
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child) return 90;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 91;
}

/* A forked child of a process that used CUDA: the driver refuses, whoever asks. */
static void child_of_user(void) {
    CUdeviceptr address;
    CUresult results[] = {CU(cuMemAlloc_v2)(&address, 100), CU(cuMemFree_v2)(global_block), CU(cuInit)(0)};
    /* The simulated driver does not notice a fork that the C library does not see. */
    _exit((results[0] && results[1]) || strcmp(what, "fork-after") ? 0 : 92);
}

static atomic_uint done;

static void storm(unsigned number) {
    CUdeviceptr live[50] = {0};
    unsigned random = number * 7919 + 1;
    for (int i = 0; i < 400; i++) {
        random = random * 1103515245 + 12345;
        unsigned at = random / 65536 % 50;
        if (live[at]) MUST(cuMemFree_v2, live[at]);
        MUST(cuMemAlloc_v2, &live[at], 1 + random / 65536 % 1000);
    }
    for (int i = 0; i < 50; i++)
        if (live[i]) MUST(cuMemFree_v2, live[i]);
}

static void keep(unsigned number) {
    CUdeviceptr address;
    MUST(cuMemAlloc_v2, &address, 1000 + number);
}

static void *one_thread(void *argument) {
    unsigned number = (unsigned)(uintptr_t)argument;
    CUhandle context;
    MUST(cuDevicePrimaryCtxRetain, &context, 0);
    MUST(cuCtxSetCurrent, context);
    storm(number);
    keep(number);
    atomic_fetch_add(&done, 1);
    return NULL;
}

static void threads(unsigned n, int rounds) {
    pthread_t thread[256];
    unsigned long long bytes = 0;
    for (int round = 0; round < rounds; round++) {
        for (uintptr_t i = 0; i < n; i++)
            if (pthread_create(&thread[i], NULL, one_thread, (void *)i)) exit(93);
        for (unsigned i = 0; i < n; i++) pthread_join(thread[i], NULL), bytes += 1000 + i;
    }
    printf("left device cuMemAlloc_v2 %llu %u keep\n", bytes, done);
}

int main(int argc, char **argv) {
    what = argv[1];
    driver("dlsym");
    if (!strcmp(what, "fork-before")) {
        pid_t child = fork();
        start();
        leak(child ? 1000 : 2000);
        return child ? wait_for(child) : 0;
    }
    if (!strcmp(what, "spawned")) {
        start();
        leak(3000);
        return 0;
    }
    start();
    if (!strcmp(what, "threads")) return threads(atoi(argv[2]), 1), 0;
    if (!strcmp(what, "leaving")) return threads(atoi(argv[2]), 10), 0;
    leak(1000);
    hold_global();
    if (!strcmp(what, "fork-after")) {
        pid_t child = fork();
        if (!child) child_of_user();
        return wait_for(child);
    }
    if (!strcmp(what, "clone")) {
        pid_t child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
        if (!child) child_of_user();
        return wait_for(child);
    }
    if (!strcmp(what, "_Fork")) {
        pid_t (*raw_fork)(void) = (pid_t (*)(void))dlsym(RTLD_DEFAULT, "_Fork");
        if (!raw_fork) return 0;
        pid_t child = raw_fork();
        if (!child) child_of_user();
        return wait_for(child);
    }
    if (!strcmp(what, "fork-exec") || !strcmp(what, "vfork-exec")) {
        pid_t child = what[0] == 'v' ? vfork() : fork();
        if (!child) execl(argv[0], argv[0], "spawned", NULL), _exit(94);
        return wait_for(child);
    }
    if (!strcmp(what, "spawn")) {
        pid_t child;
        char *arguments[] = {argv[0], "spawned", NULL};
        extern char **environ;
        if (posix_spawn(&child, argv[0], NULL, NULL, arguments, environ)) return 94;
        return wait_for(child);
    }
    if (!strcmp(what, "exec")) execl(argv[0], argv[0], "spawned", NULL);
    if (!strcmp(what, "exit")) exit(0);
    if (!strcmp(what, "_exit")) _exit(0);
    if (!strcmp(what, "quick_exit")) quick_exit(0);
    if (!strcmp(what, "abort")) abort();
    if (!strcmp(what, "signal")) raise(SIGTERM);
    if (!strcmp(what, "atexit")) atexit(free_global);
    if (!strcmp(what, "closes")) {
        fflush(stdout);
        for (int fd = 3; fd < 1024; fd++) close(fd);
        leak(1500);
    }
    return 0;
}
