/* One process allocates, another opens that memory twice and closes it once or twice; or opens it in a context
 * that it destroys, and once more in another.
 * Usage: ipc ROUTE CLOSES|again   (the second process is this program with a handle as third argument) */
#include "driver.h"
#include <sys/wait.h>

static void share(const char *program, const char *route, const char *closes) {
    CUipcMemHandle handle;
    char text[129] = "";
    CUdeviceptr address;
    MUST(cuMemAlloc_v2, &address, 3 << 20);
    MUST(cuIpcGetMemHandle, &handle, address);
    left("device", "cuMemAlloc_v2", 3 << 20, 1);
    for (int i = 0; i < 64; i++) sprintf(text + 2 * i, "%02x", handle.bytes[i]);
    pid_t child = fork();
    if (child == 0) {
        execl(program, program, route, closes, text, NULL);
        _exit(127);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (status) exit(75);
}

static void import(const char *text, int closes) {
    CUipcMemHandle handle;
    CUdeviceptr address = 0, again = 0;
    for (int i = 0; i < 64; i++) sscanf(text + 2 * i, "%2hhx", &handle.bytes[i]);
    MUST(cuIpcOpenMemHandle_v2, &address, handle, 1);
    MUST(cuIpcOpenMemHandle_v2, &again, handle, 1);
    if (address != again) exit(76);
    for (int i = 0; i < closes; i++) MUST(cuIpcCloseMemHandle, address);
}

static void import_again(const char *text) {
    CUipcMemHandle handle;
    CUhandle context;
    CUdeviceptr address = 0, before = 0;
    for (int i = 0; i < 64; i++) sscanf(text + 2 * i, "%2hhx", &handle.bytes[i]);
    MUST(cuCtxCreate_v2, &context, 0, 0);
    MUST(cuIpcOpenMemHandle_v2, &before, handle, 1);
    MUST(cuCtxDestroy_v2, context);
    MUST(cuIpcOpenMemHandle_v2, &address, handle, 1); /* at the same address again, mostly */
}

int main(int argc, char **argv) {
    driver(argv[1]);
    start();
    if (argc > 3 && !strcmp(argv[2], "again"))
        import_again(argv[3]);
    else if (argc > 3)
        import(argv[3], atoi(argv[2]));
    else
        share(argv[0], argv[1], argv[2]);
    return 0;
}
