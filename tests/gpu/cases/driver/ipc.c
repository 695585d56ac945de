/* One process's memory in another: exported by a parent, opened twice by a child of fork and exec. */
#include <sys/wait.h>
#include "../support/cu.h"

static int child(const char *hex) {
  CUipcMemHandle handle;
  CUdeviceptr first, second;
  unsigned word = 0, result;
  cu_open();
  for (size_t i = 0; i < sizeof handle; i++) {
    sscanf(hex + 2 * i, "%2x", &word);
    ((unsigned char *)&handle)[i] = (unsigned char)word;
  }
  CU(cuIpcOpenMemHandle_v2(&first, handle, 1 /* LAZY_ENABLE_PEER_ACCESS */));
  result = cuIpcOpenMemHandle_v2(&second, handle, 1);
  printf("opened twice: %u, same address: %s\n", result, result || first == second ? "yes" : "no");
  CU(cuMemcpyDtoH_v2(&word, first, sizeof word));
  printf("child reads %x\n", word);
  CU(cuIpcCloseMemHandle(first));
  if (!result) CU(cuIpcCloseMemHandle(second));
  printf("closed once too often: %u\n", (unsigned)cuIpcCloseMemHandle(first));
  CU(cuIpcOpenMemHandle_v2(&first, handle, 1)); /* left open */
  truth_imports = 1;
  new_device(4321);
  return truth_finish(NULL);
}

int main(int argc, char **argv) {
  CUipcMemHandle handle;
  CUdeviceptr at;
  unsigned word = 0xfeedbeef;
  char hex[2 * sizeof handle + 1];
  int status = 0;
  pid_t pid;
  if (argc > 1) return child(argv[1]);
  cu_open();
  at = new_device(3 * MIB);
  CU(cuMemcpyHtoD_v2(at, &word, sizeof word));
  CU(cuIpcGetMemHandle(&handle, at));
  for (size_t i = 0; i < sizeof handle; i++) sprintf(hex + 2 * i, "%02x", ((unsigned char *)&handle)[i]);
  pid = fork();
  if (!pid) {
    execl("/proc/self/exe", argv[0], hex, (char *)NULL);
    _exit(4);
  }
  waitpid(pid, &status, 0);
  printf("child ended with %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
  if (status) return 3;
  return truth_finish(cu_reset);
}
