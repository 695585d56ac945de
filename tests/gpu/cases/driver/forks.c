/* Children made by fork before CUDA is used: each has a trace of its own, and so has the parent. */
#include <sys/wait.h>
#include "../support/cu.h"

int main(void) {
  for (int i = 0; i < 3; i++) {
    pid_t pid = fork();
    int status = 0;
    if (!pid) {
      cu_open();
      for (int k = 0; k <= i; k++) new_device(1000 * (i + 1) + k);
      free_device(new_device(5), 5);
      new_async(4000 + i, NULL);
      CU(cuCtxSynchronize());
      return truth_finish(cu_reset);
    }
    waitpid(pid, &status, 0);
    printf("child %d ended with %d\n", i, status);
    fflush(stdout);
    if (status) return 3;
  }
  cu_open();
  new_device(9999);
  return truth_finish(cu_reset);
}
