/* Asks the loader all kinds of things, and prints what it says in words that do not depend on addresses. What is printed
 * must not depend on a preloaded library. Arguments: path of libstub.so */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static const char *owner(void *address) {
    static char text[300];
    Dl_info info;
    if (!address) return "nothing";
    if (!dladdr(address, &info)) return "unknown";
    const char *slash = strrchr(info.dli_fname, '/');
    snprintf(text, sizeof text, "%s in %s", info.dli_sname ? info.dli_sname : "?", slash ? slash + 1 : info.dli_fname);
    return text;
}

/* The text names whoever asked, which may be the interposer; its kind and the symbol must be the same. */
static const char *kind(const char *error) {
    static char text[300];
    if (!error) return "none";
    const char *colon = strstr(error, ": ");
    snprintf(text, sizeof text, "%s", colon ? colon + 2 : error);
    return text;
}

static void ask(const char *what, void *handle, const char *name) {
    dlerror();
    void *found = dlsym(handle, name);
    printf("%s %s: %s, ", what, name, owner(found));
    printf("%s, ", kind(dlerror()));
    printf("then %s\n", kind(dlerror()));
}

static void ask_version(const char *what, void *handle, const char *name, const char *version) {
    dlerror();
    void *found = dlvsym(handle, name, version);
    printf("%s %s %s: %s, ", what, name, version, owner(found));
    printf("%s\n", kind(dlerror()));
}

static void *in_thread(void *handle) {
    ask("thread", handle, "cuMemAlloc_v2");
    return NULL;
}

int main(int argc, char **argv) {
    const char *names[] = {"cuMemAlloc_v2", "cuGetProcAddress_v2", "cudaMalloc", "cu", "c", "", "cuNothingAtAll", "cuda", "malloc", "cos"};
    void *program = dlopen(NULL, RTLD_NOW), *math = dlopen("libm.so.6", RTLD_NOW);
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        ask("default", RTLD_DEFAULT, names[i]);
        ask("next", RTLD_NEXT, names[i]);
        ask("program", program, names[i]);
        ask("libm", math, names[i]);
    }
    ask_version("libm", math, "cuMemAlloc_v2", "libcuda.so.1");
    ask_version("default", RTLD_DEFAULT, "cuMemAlloc_v2", "libcuda.so.1");
    ask_version("default", RTLD_DEFAULT, "memcpy", "GLIBC_2.2.5");
    ask_version("libm", math, "cos", "GLIBC_NONE");

    /* An error stays until it is asked for, and only the last one. */
    dlsym(math, "no_such_function");
    dlsym(math, "cos");
    printf("kept: %s\n", kind(dlerror()));
    dlsym(math, "no_such_function");
    dlsym(math, "cuMemAlloc_v2");
    printf("last: %s\n", kind(dlerror()));

    /* Another library's function of a driver name is that library's function. */
    void *stub = dlopen(argc > 1 ? argv[1] : "libstub.so", RTLD_NOW | RTLD_LOCAL);
    if (!stub) return puts(dlerror()), 71;
    unsigned (*alloc)(void *, size_t) = (unsigned (*)(void *, size_t))dlsym(stub, "cuMemAlloc_v2");
    printf("stub: %s, says %u\n", owner((void *)alloc), alloc(NULL, 0));
    unsigned (*through)(void) = (unsigned (*)(void))dlsym(stub, "stub_asks_itself");
    printf("stub asks: %u\n", through());
    ask("default beside a local stub", RTLD_DEFAULT, "cuMemAlloc_v2");
    void *global = dlopen(argc > 1 ? argv[1] : "libstub.so", RTLD_NOW | RTLD_GLOBAL);
    ask("default beside a global stub", RTLD_DEFAULT, "cuMemAlloc_v2");
    ask("next beside a global stub", RTLD_NEXT, "cuMemAlloc_v2");
    ask("program beside a global stub", program, "cuMemAlloc_v2");
    pthread_t thread;
    pthread_create(&thread, NULL, in_thread, math);
    pthread_join(thread, NULL);
    printf("close: %d %d %d\n", dlclose(global), dlclose(stub), dlclose(math));
    return 0;
}
