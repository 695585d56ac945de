/* A libnvidia-ml.so.1 for tests, about the simulated driver's devices. STAND_IN_NVML names a directory:
 *   PID       how many bytes the process of this id has on each device; programs write these
 *   asked     one byte is added for each list of processes that was asked for
 *   log       one line is added when it is initialised and shut down
 *   as        what to do unusually, words:
 *     init-fails    nvmlInit_v2 fails
 *     no-list       lists of processes are refused
 *     empty         lists of processes are empty
 *     foreign       processes have ids of an outer pid namespace
 *     not-available the driver does not count the bytes of processes
 *     mig           devices are parts of GPUs
 *     hangs-init, hangs   nvmlInit_v2, lists of processes never answer
 * With -DOLD there are only the functions of before 2021. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { unsigned pid; unsigned long long bytes; unsigned instance, compute_instance; } Info;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory2;

#define TOTAL (81559ull << 20)
#define RESERVED (480ull << 20)
#define IDLE (3ull << 20)
#define UUID "7672616d-7472-6163-652d-73696d2d00"

static int initialised;

static int in(char *path, size_t room, const char *name) {
    const char *directory = getenv("STAND_IN_NVML");
    return directory ? snprintf(path, room, "%s/%s", directory, name) : 0;
}

static int is(const char *word) {
    char path[4096], words[256] = " ";
    if (!in(path, sizeof path, "as")) return 0;
    int file = open(path, O_RDONLY);
    if (file < 0) return 0;
    ssize_t n = read(file, words + 1, sizeof words - 3);
    close(file);
    if (n < 0) n = 0;
    words[n + 1] = ' ', words[n + 2] = 0;
    char spaced[64];
    snprintf(spaced, sizeof spaced, " %s ", word);
    return strstr(words, spaced) != NULL;
}

static void add(const char *name, const char *text) {
    char path[4096];
    if (!in(path, sizeof path, name)) return;
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (file < 0 || write(file, text, strlen(text)) < 0) abort();
    close(file);
}

static void hang(void) {
    add("hanging", "x");
    for (;;) pause();
}

/* Processes that live and have said how much they have. */
static unsigned processes(Info *infos, unsigned room) {
    unsigned count = 0;
    DIR *directory = opendir(getenv("STAND_IN_NVML"));
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        char *end, path[4096];
        long pid = strtol(entry->d_name, &end, 10);
        if (pid <= 0 || *end || kill((pid_t)pid, 0)) continue;
        in(path, sizeof path, entry->d_name);
        FILE *file = fopen(path, "r");
        unsigned long long bytes = 0;
        int read = file ? fscanf(file, "%llu", &bytes) : 0;
        if (file) fclose(file);
        if (read != 1) continue;
        if (count < room) infos[count] = (Info){(unsigned)pid, bytes, ~0u, ~0u};
        count++;
    }
    if (directory) closedir(directory);
    return count;
}

static unsigned long long used(void) {
    Info infos[64];
    unsigned count = processes(infos, 64);
    unsigned long long sum = IDLE;
    for (unsigned i = 0; i < count && i < 64; i++) sum += infos[i].bytes;
    return sum;
}

unsigned nvmlInit_v2(void) {
    if (is("hangs-init")) hang();
    if (is("init-fails")) return 9;
    initialised++;
    add("log", "init\n");
    return 0;
}

unsigned nvmlShutdown(void) {
    if (!initialised) return 1;
    initialised--;
    add("log", "shutdown\n");
    return 0;
}

const char *nvmlErrorString(unsigned code) {
    return code == 9 ? "Driver Not Loaded" : code == 6 ? "Not Found" : "Some Error";
}

unsigned nvmlDeviceGetCount_v2(unsigned *count) { return *count = 2, 0; }

unsigned nvmlSystemGetDriverVersion(char *text, unsigned room) { return snprintf(text, room, "580.159"), 0; }

unsigned nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    unsigned ordinal;
    if (!initialised) return 1;
    if (sscanf(uuid, is("mig") ? "MIG-" UUID "%2x" : "GPU-" UUID "%2x", &ordinal) != 1 || ordinal > 1) return 6;
    return *device = (void *)(unsigned long)(ordinal + 1), 0;
}

unsigned nvmlDeviceGetUUID(void *device, char *text, unsigned room) {
    if (!initialised) return 1;
    return snprintf(text, room, "%s-" UUID "%02x", is("mig") ? "MIG" : "GPU", (unsigned)(unsigned long)device - 1), 0;
}

/* Not the process's own number: other devices of the machine come before. */
unsigned nvmlDeviceGetIndex(void *device, unsigned *index) {
    if (!initialised || !device) return 1;
    return *index = (unsigned)(unsigned long)device + 3, 0;
}

/* What is reserved is among what is used. */
unsigned nvmlDeviceGetMemoryInfo(void *device, Memory *memory) {
    if (!initialised || !device) return 1;
    unsigned long long all = used() + RESERVED;
    return *memory = (Memory){TOTAL, TOTAL - all, all}, 0;
}

static unsigned list(unsigned *count, Info *infos) {
    if (!initialised) return 1;
    add("asked", "x");
    if (is("hangs")) hang();
    if (is("no-list")) return 4;
    if (is("empty")) return *count = 0, 0;
    unsigned room = *count;
    *count = processes(infos, room);
    if (*count > room) return 7;
    for (unsigned i = 0; i < *count; i++) {
        if (is("foreign")) infos[i].pid += 1 << 29;
        if (is("not-available")) infos[i].bytes = ~0ull;
    }
    return 0;
}

unsigned nvmlDeviceGetComputeRunningProcesses_v2(void *device, unsigned *count, Info *infos) { return list(count, infos); }

#ifndef OLD
unsigned nvmlDeviceGetMemoryInfo_v2(void *device, Memory2 *memory) {
    if (!initialised || !device) return 1;
    if (memory->version != (sizeof *memory | 2 << 24)) return 25;
    unsigned long long now = used();
    return *memory = (Memory2){memory->version, TOTAL, RESERVED, TOTAL - RESERVED - now, now}, 0;
}

unsigned nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, Info *infos) { return list(count, infos); }

/* The same processes once more: a process with both kinds of contexts is one. */
unsigned nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, Info *infos) {
    if (!initialised) return 1;
    if (is("empty") || is("foreign") || is("not-available") || is("no-list")) return *count = 0, 0;
    unsigned room = *count;
    *count = processes(infos, room);
    return *count > room ? 7 : 0;
}
#endif
