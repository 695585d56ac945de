/* A program that uses CUDA, and later loads a Python interpreter. Usage: embeds_python LIBPYTHON SCRIPT */
#include "driver.h"

#define FUNCTION(type, name) type (*name)() = (type (*)())dlsym(python, #name)

static void before_python(void) {
    CUdeviceptr address;
    MUST(cuMemAllocAsync, &address, 99, NULL);
}

int main(int argc, char **argv) {
    driver("dlsym");
    CUhandle context;
    MUST(cuInit, 0);
    MUST(cuCtxCreate_v2, &context, 0, 0);
    before_python();
    /* The recorder looks for new modules at most every 20 ms. */
    usleep(50000);
    void *python = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
    if (!python) { puts(dlerror()); return 90; }
    FUNCTION(void, Py_InitializeEx);
    FUNCTION(int, PyRun_SimpleString);
    FUNCTION(int, Py_FinalizeEx);
    Py_InitializeEx(0);
    int result = PyRun_SimpleString(argv[2]);
    return Py_FinalizeEx() || result ? 91 : 0;
}
