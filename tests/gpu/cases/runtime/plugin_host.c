/* A program without CUDA loads a library that carries static cudart, out of everybody's sight. */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
  void *plugin = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
  int (*run)(void) = plugin ? (int (*)(void))dlsym(plugin, "plugin_run") : NULL;
  if (!run) {
    fprintf(stderr, "%s\n", dlerror());
    return 3;
  }
  return run();
}
