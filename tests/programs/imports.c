/* A child maps 4 MiB of its parent's physical memory, which it got by a descriptor; nothing of it is the child's own. */
#include "driver.h"
#include <fcntl.h>
#include <sys/wait.h>

enum { FILE_DESCRIPTOR = 1, SHARED = 20, SIZE = 4 << 20 };

static unsigned long long import(int fd) {
    unsigned long long handle;
    CUresult (*function)() = dlsym(dlopen("libcuda.so.1", RTLD_NOW), "cuMemImportFromShareableHandle");
    CUresult result = function(&handle, (void *)(intptr_t)fd, FILE_DESCRIPTOR);
    if (result) fprintf(stderr, "import = %u\n", result), exit(70);
    return handle;
}

static void parent(char **argv) {
    CUmemAllocationProp physical = {.type = 1, .handle_types = FILE_DESCRIPTOR, .location = {1, 0}};
    unsigned long long handle;
    int fd = -1, status;
    MUST(cuMemCreate, &handle, SIZE, &physical, 0);
    MUST(cuMemExportToShareableHandle, &fd, handle, FILE_DESCRIPTOR, 0);
    if (fd != SHARED) dup2(fd, SHARED), close(fd);
    left("vmm", "cuMemCreate", SIZE, 1);
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        char *words[] = {argv[0], "child", NULL};
        execv("/proc/self/exe", words);
        _exit(72);
    }
    waitpid(child, &status, 0);
    if (status) exit(73);
}

static void child(void) {
    unsigned long long handle = import(SHARED);
    CUdeviceptr address;
    MUST(cuMemAddressReserve, &address, SIZE, 0, 0, 0);
    MUST(cuMemMap, address, SIZE, 0, handle, 0);
    MUST(cuMemRelease, handle);
}

int main(int argc, char **argv) {
    driver("dlsym");
    start();
    if (argc > 1) child();
    else parent(argv);
    return 0;
}
