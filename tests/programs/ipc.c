/* One process allocates, another opens that memory twice and closes it once or twice.
 * Usage: ipc ROUTE CLOSES   (the second process is this program with a handle as third argument) */
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

int main(int argc, char **argv) {
    driver(argv[1]);
    start();
    if (argc > 3)
        import(argv[3], atoi(argv[2]));
    else
        share(argv[0], argv[1], argv[2]);
    return 0;
}
