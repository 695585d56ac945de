/* Has memory while somebody asks how much. Usage: nvidia_smi HOW MIB...
 * For each MIB in turn: says in STAND_IN_NVML/PID that it has so many, and stays until it was asked for often enough that
 * one answer was certainly whole. It allocates some memory first, on each device with `both`.
 *   exit     ends
 *   killed   by SIGKILL
 *   fork     a child does the same with 100 MiB more, in a trace of its own
 *   exec     becomes this program, with 100 MiB more
 *   hanging  ends when nobody will ever answer
 *   quick    ends at once */
#include "driver.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

static char path[4096];

static const char *in(const char *name) {
    snprintf(path, sizeof path, "%s/%s", getenv("STAND_IN_NVML"), name);
    return path;
}

static long size(const char *name) {
    struct stat facts;
    return stat(in(name), &facts) ? 0 : facts.st_size;
}

/* Far longer than it ever takes: a test that would wait for ever fails. */
static void wait_for(const char *name, long wanted) {
    for (int i = 0; size(name) < wanted; i++) {
        if (i == 120000) fprintf(stderr, "%s stays at %ld\n", name, size(name)), exit(80);
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
}

static void say(unsigned long long mib) {
    char temporary[64], own[32] = "";
    /* As those who mounted /proc know it, in a pid namespace of its own, too. */
    if (readlink("/proc/self", own, sizeof own - 1) < 0) perror("/proc/self"), exit(85);
    snprintf(temporary, sizeof temporary, "%s.new", own);
    FILE *file = fopen(in(temporary), "w");
    if (!file) perror(path), exit(81);
    fprintf(file, "%llu\n", mib << 20);
    fclose(file);
    char from[4096];
    strcpy(from, path);
    if (rename(from, in(own))) perror("rename"), exit(82);
}

int main(int count, char **arguments) {
    const char *how = arguments[1];
    unsigned long long more = 0;
    pid_t child = -1;
    char other[32];
    /* Its own list begins with "then" in the program that it became. */
    int became = !strcmp(how, "then");
    if (became) more = 100;
    if (!strcmp(how, "fork") && !(child = fork())) more = 100;
    driver("dlsym");
    MUST(cuInit, 0);
    int devices = 1;
    if (!strcmp(how, "both")) MUST(cuDeviceGetCount, &devices);
    for (int device = 0; device < devices; device++) {
        CUhandle context;
        CUdeviceptr address;
        MUST(cuDevicePrimaryCtxRetain, &context, device);
        MUST(cuCtxSetCurrent, context);
        MUST(cuMemAlloc_v2, &address, 10 << 20);
    }
    for (int i = 2; i < count; i++) {
        say(strtoull(arguments[i], NULL, 10) + more);
        if (!strcmp(how, "quick")) break;
        /* Neither is alone when it is asked about: the parent outlives the child. */
        snprintf(other, sizeof other, "%d", (int)(child > 0 ? child : getppid()));
        if (!strcmp(how, "fork")) wait_for(other, 1);
        if (!strcmp(how, "hanging")) {
            wait_for("hanging", 1);
            break;
        }
        /* The call that is under way may have looked before, and the last one may still be. With two
         * devices there are two calls each time. */
        wait_for("asked", size("asked") + 6);
    }
    if (!strcmp(how, "exec")) {
        arguments[1] = "then";
        execv("/proc/self/exe", arguments);
        return 83;
    }
    if (!strcmp(how, "killed")) raise(SIGKILL);
    int status = 0;
    if (child > 0 && (waitpid(child, &status, 0) != child || status)) return 84;
    return 0;
}
