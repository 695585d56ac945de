// cudaDeviceReset ends everything but stream-ordered memory; the program then goes on.
#include "../support/runtime.h"

static void fill(size_t bytes) {
  cudaArray_t array;
  cudaChannelFormatDesc floats = cudaCreateChannelDesc(32, 0, 0, 0, cudaChannelFormatKindFloat);
  for (int i = 0; i < 10; i++) rt_device(bytes + i);
  rt_free(rt_device(77), 77);
  rt_pinned(bytes + 100);
  rt_async(bytes + 200, 0);
  RT(cudaMallocArray(&array, &floats, 100, 10));
  truth_alloc(ARRAY, 4000);
  RT(cudaDeviceSynchronize());
}

int main() {
  static const enum truth_kind kinds[] = {DEVICE, PINNED, ARRAY};
  for (int round = 0; round < 2; round++) {
    fill(10000 * (round + 1));
    RT(cudaDeviceReset());
    for (int i = 0; i < 3; i++) truth_ended(kinds[i], BY_RESET);
  }
  fill(123);
  return truth_finish(rt_reset);
}
