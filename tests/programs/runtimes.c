/* Several runtimes in one process. Usage: runtimes WAY RUNTIME_A RUNTIME_B USER_A USER_B USER_C. USER_A and USER_C are
 * linked to RUNTIME_A, USER_B to RUNTIME_B, which all say who they are. With -DLINKED the program is linked to A and B,
 * with -DOWN to a runtime itself. SEARCHES in the environment: says how often the loader's list was searched for many calls
 * from places that were there before. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef unsigned (*function)(void);

static void *open_library(const char *path, int mode) {
    void *library = dlopen(path, RTLD_NOW | mode);
    if (!library) fprintf(stderr, "%s\n", dlerror()), exit(71);
    return library;
}

static function find(void *library, const char *name) {
    function found = (function)dlsym(library, name);
    if (!found) fprintf(stderr, "%s\n", dlerror()), exit(71);
    return found;
}

static void say(const char *what, unsigned result) { printf("%s: %u\n", what, result), fflush(stdout); }

/* One place that calls whatever it is given. */
static unsigned call(function which) {
    volatile unsigned result = which();
    return result;
}

/* The pointer that a library has of its runtime's function. */
static unsigned call_pointer(void *(*pointer)(void)) {
    unsigned (*allocate)(void **, size_t) = (unsigned (*)(void **, size_t))pointer();
    volatile unsigned result = allocate(NULL, 8);
    return result;
}

#ifdef LINKED
#pragma weak searches
unsigned searches(void);
unsigned a_calls(void), a_jumps(void), b_calls(void), b_jumps(void);
#ifdef OWN
unsigned cudaMalloc(void **address, size_t bytes);
/* Jumps to a library's function that jumps to another runtime than the program's. */
__attribute__((optimize("optimize-sibling-calls"))) static unsigned jumps_on(void) { return b_jumps(); }
#endif

int main(int argc, char **argv) {
    unsigned before = 0;
    for (int i = 0; i < 1000 && getenv("SEARCHES"); i++) {
        a_calls(), b_calls(), a_jumps(), b_jumps();
        if (i == 0) before = searches();
    }
    if (getenv("SEARCHES")) printf("%u searches, later %u\n", before, searches() - before);
    for (int i = 0; i < 2; i++) {
        say("a calls", a_calls());
        say("b calls", b_calls());
        say("a jumps", a_jumps());
        say("b jumps", b_jumps());
#ifdef OWN
        say("own", cudaMalloc(NULL, 8));
        say("jumps on", jumps_on());
#endif
    }
    return 0;
}
#else
int main(int argc, char **argv) {
    int global = !strcmp(argv[1], "global") ? RTLD_GLOBAL : RTLD_LOCAL;
    void *a = open_library(argv[4], global);
    if (!strcmp(argv[1], "one")) {
        /* Only one runtime: nobody can mean another. */
        for (int i = 0; i < 3; i++) {
            say("a calls", call(find(a, "a_calls")));
            say("a jumps", call(find(a, "a_jumps")));
            say("a's pointer", call_pointer((void *(*)(void))(void *)find(a, "a_pointer")));
        }
        return 0;
    }
    say("a calls, alone", call(find(a, "a_calls")));
    void *b = open_library(argv[5], global);
    for (int i = 0; i < 2; i++) {
        say("a calls", call(find(a, "a_calls")));
        say("b calls", call(find(b, "b_calls")));
    }
    void *runtimes[] = {open_library(argv[2], RTLD_LOCAL), open_library(argv[3], RTLD_LOCAL)};
    for (int i = 0; i < 2; i++) {
        unsigned (*allocate)(void **, size_t) = (unsigned (*)(void **, size_t))dlsym(runtimes[i], "cudaMalloc");
        say("by handle", allocate(NULL, 8));
    }
    pid_t child = fork();
    if (child == 0) {
        say("child: b calls", call(find(b, "b_calls")));
        say("child: a calls", call(find(a, "a_calls")));
        return 0;
    }
    waitpid(child, NULL, 0);
    /* Another library where one was, linked to the other runtime. */
    dlclose(b);
    void *c = open_library(argv[6], global);
    say("c calls", call(find(c, "c_calls")));
    say("a calls", call(find(a, "a_calls")));
    return 0;
}
#endif
