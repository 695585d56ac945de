/* What NVTX's header is to a program, without NVIDIA's: at the first call it loads the library that
 * NVTX_INJECTION64_PATH names, and has it fill in tables of functions; what is not filled in does nothing.
 *
 * With -DREAL_NVTX it is NVIDIA's own header (nvtx3/nvToolsExt.h), found by -I. */
#ifndef NVTX_H
#define NVTX_H
#ifdef REAL_NVTX
#include <nvtx3/nvToolsExt.h>
#include <nvtx3/nvToolsExtPayload.h>
#else
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <wchar.h>

typedef uint64_t nvtxRangeId_t;
typedef void *nvtxDomainHandle_t, *nvtxStringHandle_t;
typedef struct {
    uint16_t version, size;
    uint32_t category;
    int32_t colorType;
    uint32_t color;
    int32_t payloadType, reserved0;
    union { uint64_t ullValue; double dValue; } payload;
    int32_t messageType;
    union { const char *ascii; const wchar_t *unicode; nvtxStringHandle_t registered; } message;
} nvtxEventAttributes_t;
#define NVTX_VERSION 3
#define NVTX_EVENT_ATTRIB_STRUCT_SIZE ((uint16_t)sizeof(nvtxEventAttributes_t))
#define NVTX_NO_PUSH_POP_TRACKING ((int)-2)
enum { NVTX_MESSAGE_TYPE_ASCII = 1, NVTX_MESSAGE_TYPE_UNICODE, NVTX_MESSAGE_TYPE_REGISTERED };

typedef void (*nvtx_function)(void);
static nvtx_function nvtx_core[16], nvtx_core2[16];
static nvtx_function *nvtx_core_slots[17], *nvtx_core2_slots[17];

static int nvtx_table(uint32_t module, nvtx_function ***table, unsigned *size) {
    nvtx_function **slots = module == 1 ? nvtx_core_slots : module == 5 ? nvtx_core2_slots : NULL;
    if (!slots) return 0;
    *table = slots;
    *size = 16; /* the seventeenth is nobody's */
    return 1;
}

static const void *nvtx_export(uint32_t id) {
    static const struct { size_t size; int (*get)(uint32_t, nvtx_function ***, unsigned *); } callbacks = {sizeof callbacks, nvtx_table};
    return id == 1 ? &callbacks : NULL;
}

static void nvtx_load(void) {
    for (int number = 1; number < 16; number++) {
        nvtx_core_slots[number] = &nvtx_core[number];
        nvtx_core2_slots[number] = &nvtx_core2[number];
    }
    const char *path = getenv("NVTX_INJECTION64_PATH");
    if (!path) return;
    void *library = dlopen(path, RTLD_LAZY);
    if (!library) return;
    int (*initialize)(const void *(*)(uint32_t)) = (int (*)(const void *(*)(uint32_t)))dlsym(library, "InitializeInjectionNvtx2");
    if (initialize && initialize(nvtx_export)) return;
    for (int number = 0; number < 16; number++) nvtx_core[number] = nvtx_core2[number] = NULL;
    dlclose(library);
}

static nvtx_function nvtx_find(nvtx_function *functions, int number) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, nvtx_load);
    return functions[number];
}

/* NAME(parameters) calls function NUMBER of a table, if it is there. */
#define NVTX_FUNCTION(result, otherwise, name, table, number, parameters, arguments) \
    static inline result name parameters { \
        result (*function) parameters = (result (*) parameters)nvtx_find(table, number); \
        return function ? function arguments : otherwise; \
    }
NVTX_FUNCTION(void, (void)0, nvtxMarkEx, nvtx_core, 1, (const nvtxEventAttributes_t *e), (e))
NVTX_FUNCTION(void, (void)0, nvtxMarkA, nvtx_core, 2, (const char *t), (t))
NVTX_FUNCTION(void, (void)0, nvtxMarkW, nvtx_core, 3, (const wchar_t *t), (t))
NVTX_FUNCTION(nvtxRangeId_t, 0, nvtxRangeStartEx, nvtx_core, 4, (const nvtxEventAttributes_t *e), (e))
NVTX_FUNCTION(nvtxRangeId_t, 0, nvtxRangeStartA, nvtx_core, 5, (const char *t), (t))
NVTX_FUNCTION(nvtxRangeId_t, 0, nvtxRangeStartW, nvtx_core, 6, (const wchar_t *t), (t))
NVTX_FUNCTION(void, (void)0, nvtxRangeEnd, nvtx_core, 7, (nvtxRangeId_t id), (id))
NVTX_FUNCTION(int, -2, nvtxRangePushEx, nvtx_core, 8, (const nvtxEventAttributes_t *e), (e))
NVTX_FUNCTION(int, -2, nvtxRangePushA, nvtx_core, 9, (const char *t), (t))
NVTX_FUNCTION(int, -2, nvtxRangePushW, nvtx_core, 10, (const wchar_t *t), (t))
NVTX_FUNCTION(int, -2, nvtxRangePop, nvtx_core, 11, (void), ())
NVTX_FUNCTION(void, (void)0, nvtxNameOsThreadA, nvtx_core, 14, (uint32_t id, const char *t), (id, t))
NVTX_FUNCTION(void, (void)0, nvtxNameOsThreadW, nvtx_core, 15, (uint32_t id, const wchar_t *t), (id, t))
NVTX_FUNCTION(void, (void)0, nvtxDomainMarkEx, nvtx_core2, 1, (nvtxDomainHandle_t d, const nvtxEventAttributes_t *e), (d, e))
NVTX_FUNCTION(nvtxRangeId_t, 0, nvtxDomainRangeStartEx, nvtx_core2, 2, (nvtxDomainHandle_t d, const nvtxEventAttributes_t *e), (d, e))
NVTX_FUNCTION(void, (void)0, nvtxDomainRangeEnd, nvtx_core2, 3, (nvtxDomainHandle_t d, nvtxRangeId_t id), (d, id))
NVTX_FUNCTION(int, -2, nvtxDomainRangePushEx, nvtx_core2, 4, (nvtxDomainHandle_t d, const nvtxEventAttributes_t *e), (d, e))
NVTX_FUNCTION(int, -2, nvtxDomainRangePop, nvtx_core2, 5, (nvtxDomainHandle_t d), (d))
NVTX_FUNCTION(nvtxStringHandle_t, NULL, nvtxDomainRegisterStringA, nvtx_core2, 10, (nvtxDomainHandle_t d, const char *t), (d, t))
NVTX_FUNCTION(nvtxStringHandle_t, NULL, nvtxDomainRegisterStringW, nvtx_core2, 11, (nvtxDomainHandle_t d, const wchar_t *t), (d, t))
NVTX_FUNCTION(nvtxDomainHandle_t, NULL, nvtxDomainCreateA, nvtx_core2, 12, (const char *t), (t))
NVTX_FUNCTION(nvtxDomainHandle_t, NULL, nvtxDomainCreateW, nvtx_core2, 13, (const wchar_t *t), (t))
NVTX_FUNCTION(void, (void)0, nvtxDomainDestroy, nvtx_core2, 14, (nvtxDomainHandle_t d), (d))

/* The payload extension: a table of its own, filled in by another function of the same library. */
typedef struct { uint64_t schemaId; size_t size; const void *payload; } nvtxPayloadData_t;
typedef struct { size_t id, count; intptr_t *slots; } nvtx_segment;
typedef struct {
    uint16_t version, size, module, compatible;
    size_t count;
    nvtx_segment *segments;
    intptr_t (*get_export)(uint32_t);
    const void *info;
} nvtx_extension;
static intptr_t nvtx_payload[63];

static void nvtx_load_payload(void) {
    nvtx_segment segment = {0, 63, nvtx_payload};
    nvtx_extension extension = {NVTX_VERSION, sizeof extension, 2, 0x0104, 1, &segment, NULL, NULL};
    const char *path = getenv("NVTX_INJECTION64_PATH");
    void *library = path ? dlopen(path, RTLD_LAZY) : NULL;
    if (!library) return;
    int (*initialize)(nvtx_extension *) = (int (*)(nvtx_extension *))dlsym(library, "InitializeInjectionNvtxExtension");
    if (initialize && initialize(&extension)) return;
    for (int number = 0; number < 63; number++) nvtx_payload[number] = 0;
}
static nvtx_function nvtx_find_payload(intptr_t *slots, int number) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, nvtx_load_payload);
    return (nvtx_function)slots[number];
}
#define nvtx_find nvtx_find_payload
NVTX_FUNCTION(int, -2, nvtxRangePushPayload, nvtx_payload, 3, (nvtxDomainHandle_t d, const nvtxPayloadData_t *p, size_t n), (d, p, n))
NVTX_FUNCTION(int, -2, nvtxRangePopPayload, nvtx_payload, 4, (nvtxDomainHandle_t d, const nvtxPayloadData_t *p, size_t n), (d, p, n))
NVTX_FUNCTION(nvtxRangeId_t, 0, nvtxRangeStartPayload, nvtx_payload, 5, (nvtxDomainHandle_t d, const nvtxPayloadData_t *p, size_t n), (d, p, n))
NVTX_FUNCTION(void, (void)0, nvtxRangeEndPayload, nvtx_payload, 6, (nvtxDomainHandle_t d, nvtxRangeId_t id, const nvtxPayloadData_t *p, size_t n), (d, id, p, n))
#undef nvtx_find
#endif

static inline nvtxEventAttributes_t nvtx_event(void) {
    nvtxEventAttributes_t event = {0};
    event.version = NVTX_VERSION;
    event.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
    return event;
}
static inline nvtxEventAttributes_t nvtx_ascii(const char *text) {
    nvtxEventAttributes_t event = nvtx_event();
    event.messageType = NVTX_MESSAGE_TYPE_ASCII;
    event.message.ascii = text;
    return event;
}
static inline nvtxEventAttributes_t nvtx_unicode(const wchar_t *text) {
    nvtxEventAttributes_t event = nvtx_event();
    event.messageType = NVTX_MESSAGE_TYPE_UNICODE;
    event.message.unicode = text;
    return event;
}
static inline nvtxEventAttributes_t nvtx_registered(nvtxStringHandle_t text) {
    nvtxEventAttributes_t event = nvtx_event();
    event.messageType = NVTX_MESSAGE_TYPE_REGISTERED;
    event.message.registered = text;
    return event;
}
#endif
