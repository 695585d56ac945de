/* Allocates in NVTX ranges, and says in which: `in BYTES COUNT RANGE`. Usage: ranges STORY
 *   kinds     every way to open a range: texts of all kinds, domains, registered texts, started ranges
 *   before    ranges that were opened before CUDA was used
 *   odd       pops without pushes, garbage handles, no message, huge and hostile texts
 *   deep      ranges nested deeper than any program nests them
 *   numbers   names with ever new numbers, and allocations in the last of them
 *   names     more names than there is room for
 *   threads   ranges of several threads, started in one and ended in another, a thread that ends inside one
 *   times     ranges that something is allocated in or not; says when those were entered and ended in which something was:
 *             `was THREAD ENTERED BY ENDED BY RANGE`, each time between two readings of the clock
 *   payload   ranges that are pushed or popped with a payload, as NCCL does
 *   fork      a child that inherits open ranges
 *   random SEED   threads that open and close ranges at random
 *   marks     marks, in and out of domains
 *   many      more marks than there is room for
 *   wait      opens a range, leaks in it, says so, and waits to be killed while it enters it again */
#include "driver.h"
#include "nvtx.h"
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/wait.h>

void vramtrace_mark(const char *) __attribute__((weak));

static void leak(size_t bytes) {
    CUdeviceptr address;
    MUST(cuMemAlloc_v2, &address, bytes);
}
/* Leaks, and says which range that must be in. */
static void in(const char *range, size_t bytes) {
    leak(bytes);
    printf("in %zu 1 %s\n", bytes, range);
}
static void start_cuda(void) {
    CUhandle context;
    MUST(cuInit, 0);
    MUST(cuDevicePrimaryCtxRetain, &context, 0);
    MUST(cuCtxSetCurrent, context);
}
static void untracked(int result) {
    if (result != NVTX_NO_PUSH_POP_TRACKING) printf("push or pop returned %d\n", result), exit(80);
}

static void kinds(void) {
    in("no range", 1000);
    untracked(nvtxRangePushA("plain"));
    in("plain", 1001);
    untracked(nvtxRangePushW(L"wide \u6f22"));
    in("plain > wide \u6f22", 1002);
    nvtxEventAttributes_t event = nvtx_ascii("ascii");
    untracked(nvtxRangePushEx(&event));
    in("plain > wide \u6f22 > ascii", 1003);
    event = nvtx_unicode(L"unicode \U0001F680");
    untracked(nvtxRangePushEx(&event));
    in("plain > wide \u6f22 > ascii > unicode \U0001F680", 1004);
    for (int level = 0; level < 3; level++) untracked(nvtxRangePop());
    in("plain", 1005);
    nvtxDomainHandle_t library = nvtxDomainCreateA("library"), wide = nvtxDomainCreateW(L"wide \u00ef");
    nvtxStringHandle_t step = nvtxDomainRegisterStringA(library, "step"), inner = nvtxDomainRegisterStringW(wide, L"inner");
    event = nvtx_registered(step);
    untracked(nvtxDomainRangePushEx(library, &event));
    in("plain > library: step", 1006);
    event = nvtx_registered(inner);
    nvtxDomainRangePushEx(wide, &event);
    in("plain > library: step > wide \u00ef: inner", 1007);
    untracked(nvtxDomainRangePop(library)); /* not the innermost one */
    in("plain > wide \u00ef: inner", 1008);
    nvtxDomainRangePop(wide);
    event = nvtx_ascii("plain");
    nvtxDomainRangePushEx(library, &event);
    in("plain > library: plain", 1009);
    nvtxDomainRangePop(library);
    nvtxRangePop();
    nvtxRangeId_t one = nvtxRangeStartA("one"), two = nvtxRangeStartW(L"two");
    in("two", 1010);
    event = nvtx_ascii("three");
    nvtxRangeId_t three = nvtxDomainRangeStartEx(library, &event), four = nvtxRangeStartEx(&event);
    in("three", 1011);
    nvtxRangeEnd(four);
    in("library: three", 1012);
    nvtxRangeEnd(two);
    nvtxDomainRangeEnd(library, three);
    in("one", 1013);
    nvtxRangePushA("pushed");
    in("pushed", 1014);
    nvtxRangePop();
    nvtxRangeEnd(one);
    in("no range", 1015);
    nvtxDomainDestroy(library);
    for (int round = 0; round < 41; round++) {
        nvtxRangePushA("again");
        if (round == 40) in("again", 1016);
        nvtxRangePop();
    }
    /* a free, and memory that comes and goes, change nothing */
    nvtxRangePushA("freed");
    CUdeviceptr address;
    MUST(cuMemAlloc_v2, &address, 5000);
    nvtxRangePushA("elsewhere");
    MUST(cuMemFree_v2, address);
    nvtxRangePop();
    MUST(cuMemAllocAsync, &address, 1017, NULL);
    puts("in 1017 1 freed");
    nvtxRangePop();
}

static void payload(void) {
    int answer = 0;
    nvtxPayloadData_t data = {1, sizeof answer, &answer};
    nvtxDomainHandle_t library = nvtxDomainCreateA("library");
    nvtxEventAttributes_t event = nvtx_ascii("call");
    for (int round = 0; round < 100; round++) { /* more than are told apart at once, if none ended */
        untracked(nvtxDomainRangePushEx(library, &event));
        if (round == 99) in("library: call", 1100);
        untracked(nvtxRangePopPayload(library, &data, 1));
    }
    in("no range", 1101);
    nvtxRangePushA("outer");
    untracked(nvtxRangePushPayload(library, &data, 1));
    in("outer > library: (unnamed)", 1102);
    untracked(nvtxDomainRangePop(library));
    in("outer", 1103);
    nvtxRangePop();
    nvtxRangeId_t with = nvtxRangeStartPayload(library, &data, 1);
    in("library: (unnamed)", 1104);
    nvtxRangeEnd(with);
    nvtxRangeId_t without = nvtxDomainRangeStartEx(library, &event);
    in("library: call", 1105);
    nvtxRangeEndPayload(library, without, &data, 1);
    in("no range", 1106);
}

static void before(void) {
    nvtxRangePushA("outer");
    nvtxRangeId_t started = nvtxRangeStartA("started");
    nvtxRangePushA("inner");
    start_cuda();
    in("outer > inner", 2000);
    nvtxRangePop();
    nvtxRangePop();
    in("started", 2001);
    nvtxRangeEnd(started);
    in("no range", 2002);
}

static void odd(void) {
    for (int time = 0; time < 3; time++) nvtxRangePop();
    in("no range", 3000);
    nvtxRangePushA("range");
    nvtxDomainRangePop((nvtxDomainHandle_t)0x7fffffffffff); /* is as the default domain */
    in("no range", 3001);
    nvtxRangePushA(NULL);
    in("(unnamed)", 3002);
    nvtxRangePop();
    nvtxRangePushEx(NULL);
    in("(unnamed)", 3003);
    nvtxRangePop();
    nvtxEventAttributes_t event = nvtx_ascii("not read");
    event.size = 24;
    nvtxRangePushEx(&event);
    in("(unnamed)", 3004);
    nvtxRangePop();
    event = nvtx_registered((nvtxStringHandle_t)(uintptr_t)0xdeadbeefdead);
    nvtxRangePushEx(&event);
    in("(unnamed)", 3005);
    nvtxRangePop();
    event = nvtx_ascii(NULL);
    event.messageType = 77;
    nvtxRangePushEx(&event);
    in("(unnamed)", 3006);
    nvtxRangePop();
    event = nvtx_unicode(NULL);
    nvtxRangePushEx(&event);
    in("(unnamed)", 3007);
    nvtxRangePop();
    nvtxRangeEnd(0);
    nvtxRangeEnd(~0ull);
    nvtxRangeEnd(0x1234567);
    /* printed as they are, these would move the cursor, reorder the line, and fill the screen */
    nvtxRangePushA("\x1b[2J\r\n\u202eevil\x07");
    leak(3008);
    nvtxRangePop();
    nvtxRangePushA("\xff\xfe not UTF-8 \xc3");
    leak(3009);
    nvtxRangePop();
    char *huge = malloc(10001);
    memset(huge, 'x', 10000);
    huge[10000] = 0;
    nvtxRangePushA(huge);
    leak(3010);
    nvtxRangePop();
    memcpy(huge, "\u6f22\u6f22\u6f22", 9);
    for (int at = 9; at < 10000; at += 3) memcpy(huge + at, "\u6f22", 3);
    nvtxRangePushA(huge);
    leak(3011);
    nvtxRangePop();
    free(huge);
}

static void deep(void) {
    for (int level = 0; level < 1000; level++) nvtxRangePushA("again");
    leak(4000);
    for (int level = 0; level < 1000; level++) nvtxRangePop();
    in("no range", 4001);
    for (int level = 0; level < 100000; level++) nvtxRangePushA("never closed");
    leak(4002);
}

static void numbers(void) {
    char name[40];
    for (int step = 0; step < 100000; step++) {
        snprintf(name, sizeof name, "step %d", step);
        nvtxRangePushA(name);
        snprintf(name, sizeof name, "op %d of %d", step % 7, step);
        nvtxRangePushA(name);
        if (step % 10000 == 0) leak(5000);
        nvtxRangePop();
        nvtxRangePop();
    }
    puts("in 50000 10 step # > op # of #");
    for (int epoch = 0; epoch < 10; epoch++) {
        snprintf(name, sizeof name, "epoch %d", epoch);
        nvtxRangePushA(name);
        for (int step = 0; step < 3; step++) nvtxRangePushA("step"), nvtxRangePop();
        in(name, 5100 + epoch);
        nvtxRangePop();
    }
}

/* Letters only, so that there are no numbers in it. */
static const char *letters(int number, char *name) {
    for (int at = 0; at < 6; at++, number /= 26) name[at] = 'a' + number % 26;
    name[6] = 0;
    return name;
}
static void names(void) {
    char name[8];
    for (int number = 0; number < 20000; number++) {
        nvtxRangePushA("around");
        nvtxRangePushA(letters(number, name));
        leak(number < 1000 ? 600 : 700);
        nvtxRangePop();
        nvtxRangePop();
    }
}

static pthread_barrier_t barrier;
static nvtxRangeId_t shared;

static void *worker(void *argument) {
    int number = (int)(intptr_t)argument;
    char name[40];
    snprintf(name, sizeof name, "worker %c", 'A' + number);
    nvtxNameOsThreadA((uint32_t)syscall(SYS_gettid), name);
    CUhandle context;
    MUST(cuDevicePrimaryCtxRetain, &context, 0);
    MUST(cuCtxSetCurrent, context);
    nvtxRangePushA(name);
    in(name, 6000 + number);
    pthread_barrier_wait(&barrier);
    nvtxRangePushA("both");
    pthread_barrier_wait(&barrier);
    in(number ? "worker B > both" : "worker A > both", 6010 + number);
    nvtxRangePop();
    if (number) {
        nvtxRangePop();
        nvtxRangeEnd(shared);
        shared = nvtxRangeStartA("begun by a worker");
    }
    return NULL; /* one of them inside its range */
}
static void threads(void) {
    pthread_t workers[2];
    pthread_barrier_init(&barrier, NULL, 2);
    nvtxRangePushA("main");
    shared = nvtxRangeStartA("shared");
    for (intptr_t number = 0; number < 2; number++) pthread_create(&workers[number], NULL, worker, (void *)number);
    for (int number = 0; number < 2; number++) pthread_join(workers[number], NULL);
    in("main", 6020);
    nvtxRangePop();
    in("begun by a worker", 6021);
    nvtxRangeEnd(shared);
    in("no range", 6022);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}
typedef struct Visit { const char *path; uint64_t entered, by; } Visit;
static Visit entered(const char *path, uint64_t before) {
    return (Visit){path, before, now()};
}
static void was(long thread, Visit visit, uint64_t before) {
    printf("was %ld %lu %lu %lu %lu %s\n", thread, visit.entered, visit.by, before, now(), visit.path);
}
static void come_and_go(size_t bytes) {
    CUdeviceptr address;
    MUST(cuMemAlloc_v2, &address, bytes);
    usleep(300);
    MUST(cuMemFree_v2, address);
}
static void *times_of_a_thread(void *argument) {
    CUhandle context;
    MUST(cuDevicePrimaryCtxRetain, &context, 0);
    MUST(cuCtxSetCurrent, context);
    long self = syscall(SYS_gettid);
    uint64_t before;
    nvtxDomainHandle_t library = nvtxDomainCreateA("library");
    nvtxEventAttributes_t event = nvtx_ascii("part");
    for (int step = 0; step < 40; step++) {
        before = now(), nvtxRangePushA("step");
        Visit outer = entered("step", before);
        nvtxRangePushA("nothing"), usleep(100), nvtxRangePop();
        if (step % 2) {
            before = now(), nvtxRangePushA("forward");
            Visit inner = entered("step > forward", before);
            come_and_go(1000 + step);
            before = now(), nvtxRangePop(), was(self, inner, before);
        }
        if (step % 3 == 1) {
            /* ends before what was pushed after it */
            before = now(), nvtxDomainRangePushEx(library, &event);
            Visit part = entered("step > library: part", before);
            before = now(), nvtxRangePushA("over");
            Visit over = entered("step > over", before);
            come_and_go(2000 + step);
            before = now(), nvtxDomainRangePop(library), was(self, part, before);
            usleep(200);
            before = now(), nvtxRangePop(), was(self, over, before);
        }
        before = now(), nvtxRangePop();
        if (step % 2 || step % 3 == 1) was(self, outer, before);
    }
    /* deeper than times are kept for, and something is allocated at the bottom */
    if (argument) {
        for (int level = 0; level < 70; level++) nvtxRangePushA("deep");
        come_and_go(3000);
        for (int level = 0; level < 70; level++) nvtxRangePop();
    }
    return NULL;
}
static void times(void) {
    uint64_t before = now();
    nvtxRangeId_t idle = nvtxRangeStartA("idle"), busy = nvtxRangeStartA("busy");
    Visit visit = entered("busy", before);
    come_and_go(4000);
    pthread_t threads[2];
    for (intptr_t number = 0; number < 2; number++) pthread_create(&threads[number], NULL, times_of_a_thread, (void *)number);
    for (int number = 0; number < 2; number++) pthread_join(threads[number], NULL);
    before = now(), nvtxRangeEnd(busy), was(0, visit, before);
    nvtxRangeEnd(idle);
    nvtxRangePushA("open"); /* for ever */
    leak(5000);
}

static void forks(void) {
    nvtxRangePushA("parent");
    in("parent", 7000);
    fflush(stdout);
    if (!fork()) {
        nvtxRangePushA("never in a trace");
        nvtxRangePop();
        nvtxRangePushA("child");
        char *self = "/proc/self/exe";
        execl(self, self, "child", NULL);
        _exit(81);
    }
    int status;
    wait(&status);
    if (status) exit(82);
    for (int time = 0; time < 4; time++) nvtxRangePushA("later"), nvtxRangePop();
    nvtxRangePushA("later");
    in("parent > later", 7001);
}
/* A child that was forked before the parent used CUDA: it may use it itself, in the ranges that it inherited. */
static void inherits(void) {
    nvtxRangePushA("parent");
    nvtxRangeId_t started = nvtxRangeStartA("started by the parent");
    pid_t child = fork();
    if (!child) {
        nvtxRangePushA("child");
        start_cuda();
        leak(7100);
        nvtxRangePop();
        nvtxRangePop();
        leak(7101);
        nvtxRangeEnd(started);
        leak(7102);
        exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    if (status) exit(83);
    start_cuda();
    leak(7200);
}

#define STEPS 3000
typedef struct { unsigned seed; size_t bytes[64], count[64]; char *name[64]; int used; } Account;
static const char *words[] = {"alpha", "beta", "gamma", "delta", "forward", "backward"};

static void charge(Account *account, const char *range, size_t bytes) {
    int at = 0;
    while (at < account->used && strcmp(account->name[at], range)) at++;
    if (at == account->used) account->name[account->used++] = strdup(range);
    account->bytes[at] += bytes;
    account->count[at]++;
}
static void *random_ranges(void *argument) {
    Account *account = argument;
    CUhandle context;
    MUST(cuDevicePrimaryCtxRetain, &context, 0);
    MUST(cuCtxSetCurrent, context);
    int path[3], depth = 0;
    for (int step = 0; step < STEPS; step++) {
        unsigned what = rand_r(&account->seed) % 10;
        if (what < 3 && depth < 2) {
            path[depth] = rand_r(&account->seed) % 6;
            nvtxRangePushA(words[path[depth++]]);
        } else if (what < 6 && depth) {
            nvtxRangePop();
            depth--;
        } else if (what < 8) {
            char range[100] = "";
            for (int level = 0; level < depth; level++) strcat(strcat(range, level ? " > " : ""), words[path[level]]);
            size_t bytes = 512 + rand_r(&account->seed) % 4000;
            leak(bytes);
            charge(account, depth ? range : "no range", bytes);
        } else {
            CUdeviceptr address;
            MUST(cuMemAlloc_v2, &address, 100000);
            MUST(cuMemFree_v2, address);
        }
    }
    return NULL;
}
static void random_threads(unsigned seed) {
    static Account accounts[4], all;
    pthread_t threads[4];
    for (unsigned number = 0; number < 4; number++) {
        accounts[number].seed = seed * 4 + number;
        pthread_create(&threads[number], NULL, random_ranges, &accounts[number]);
    }
    for (int number = 0; number < 4; number++) {
        pthread_join(threads[number], NULL);
        Account *account = &accounts[number];
        for (int at = 0; at < account->used; at++)
            for (size_t times = account->count[at]; times; times--) charge(&all, account->name[at], times == 1 ? account->bytes[at] : 0);
    }
    for (int at = 0; at < all.used; at++) printf("in %zu %zu %s\n", all.bytes[at], all.count[at], all.name[at]);
}

static void marks(void) {
    nvtxMarkA("begin");
    leak(8000);
    nvtxMarkW(L"second \u6f22");
    leak(8001);
    nvtxEventAttributes_t event = nvtx_ascii("third");
    nvtxMarkEx(&event);
    leak(8002);
    nvtxDomainHandle_t library = nvtxDomainCreateA("library");
    nvtxDomainMarkEx(library, &event); /* the same text in a domain */
    leak(8003);
    event = nvtx_registered(nvtxDomainRegisterStringA(library, "fourth"));
    nvtxDomainMarkEx(library, &event);
    leak(8004);
    if (vramtrace_mark) vramtrace_mark("fifth");
    leak(8005);
    nvtxMarkA("begin"); /* once more: the last one is meant */
    leak(8006);
    nvtxMarkA("\x1b[2J evil \u202e");
}
static void many_marks(void) {
    char name[200];
    for (int number = 0; number < 20000; number++) {
        snprintf(name, sizeof name, "mark %d of a program that sets far too many of them", number);
        nvtxMarkA(name);
    }
    nvtxMarkA(letters(7, name));
    leak(8100);
    nvtxMarkA("mark 3 of a program that sets far too many of them");
}

static void waits(void) {
    nvtxRangePushA("outer");
    nvtxRangePushA("inner");
    leak(9000);
    nvtxRangePop();
    for (int time = 0; time < 99; time++) nvtxRangePushA("inner"), nvtxRangePop();
    puts("ready");
    fflush(stdout);
    pause();
}

int main(int argc, char **argv) {
    const char *story = argc > 1 ? argv[1] : "";
    driver("dlsym");
    if (!strcmp(story, "before")) return before(), 0;
    if (!strcmp(story, "inherits")) return inherits(), 0;
    start_cuda();
    if (!strcmp(story, "kinds")) kinds();
    else if (!strcmp(story, "odd")) odd();
    else if (!strcmp(story, "deep")) deep();
    else if (!strcmp(story, "numbers")) numbers();
    else if (!strcmp(story, "names")) names();
    else if (!strcmp(story, "threads")) threads();
    else if (!strcmp(story, "times")) times();
    else if (!strcmp(story, "payload")) payload();
    else if (!strcmp(story, "fork")) forks();
    else if (!strcmp(story, "child")) in("no range", 7300);
    else if (!strcmp(story, "random")) random_threads(argc > 2 ? atoi(argv[2]) : 1);
    else if (!strcmp(story, "marks")) marks();
    else if (!strcmp(story, "many")) many_marks();
    else if (!strcmp(story, "wait")) waits();
    else return 79;
    return 0;
}
