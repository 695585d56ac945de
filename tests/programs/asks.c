/* Looks every function up, counts the devices, and allocates nothing. */
#include "driver.h"
#include <sys/wait.h>

int main(void) {
    int count = -1, version = -1;
    driver("proc");
    driver("dlsym");
    MUST(cuInit, 0);
    MUST(cuDeviceGetCount, &count);
    MUST(cuDriverGetVersion, &version);
    pid_t child = fork();
    if (child == 0) return 0;
    waitpid(child, NULL, 0);
    printf("%d devices, driver %d\n", count, version);
    return 0;
}
