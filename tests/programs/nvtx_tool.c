/* Another tool that receives NVTX's calls: says what is pushed. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef void (*function)(void);
typedef struct { size_t size; int (*get)(uint32_t, function ***, unsigned *); } Callbacks;

static int push(const char *text) {
    fprintf(stderr, "tool: push %s\n", text);
    return -2;
}

int InitializeInjectionNvtx2(const void *(*get)(uint32_t)) {
    const Callbacks *callbacks = get(1);
    function **core;
    unsigned size;
    if (!callbacks || !callbacks->get(1, &core, &size) || size < 10) return 0;
    *core[9] = (function)push;
    return 1;
}
