// Every allocation call of the runtime, some freed and some kept, and a kernel that must compute right.
// With PLUGIN it is a library that a host program loads; else a program.
#include "../support/runtime.h"

__global__ void add(float *to, const float *from, int n) {
  int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) to[i] += from[i];
}

static void compute(cudaStream_t stream) {
  int n = 1 << 16;
  size_t bytes = n * sizeof(float);
  float *ones = (float *)rt_pinned(bytes), *sums = (float *)rt_pinned(bytes);
  float *a = (float *)rt_async(bytes, stream), *b = (float *)rt_device(bytes);
  double total = 0;
  for (int i = 0; i < n; i++) ones[i] = 1;
  RT(cudaMemcpyAsync(a, ones, bytes, cudaMemcpyHostToDevice, stream));
  RT(cudaMemcpyAsync(b, ones, bytes, cudaMemcpyHostToDevice, stream));
  void *arguments[] = {&b, &a, &n};
  for (int i = 0; i < 3; i++)
    RT(cudaLaunchKernel((const void *)add, dim3(n / 256), dim3(256), arguments, 0, stream));
  RT(cudaMemcpyAsync(sums, b, bytes, cudaMemcpyDeviceToHost, stream));
  rt_free_async(a, bytes, stream);
  RT(cudaStreamSynchronize(stream));
  for (int i = 0; i < n; i++) total += sums[i];
  printf("sum %.0f\n", total);
  RT(cudaFreeHost(ones));
  truth_free(PINNED, bytes);
}

static void pitched(void) {
  void *at;
  size_t pitch;
  for (int i = 0; i < 4; i++) {
    RT(cudaMallocPitch(&at, &pitch, 1000 + i, 33));
    if (i % 2) RT(cudaFree(at));
    else truth_alloc(DEVICE, pitch * 33);
  }
  for (int i = 0; i < 2; i++) {
    cudaPitchedPtr box;
    RT(cudaMalloc3D(&box, make_cudaExtent(500, 6, 7 + i)));
    if (i) RT(cudaFree(box.ptr));
    else truth_alloc(DEVICE, box.pitch * 6 * 7);
  }
}

static void host(void) {
  void *at;
  rt_pinned(12345);
  RT(cudaHostAlloc(&at, 54321, cudaHostAllocMapped | cudaHostAllocPortable));
  truth_alloc(PINNED, 54321);
  for (int i = 0; i < 2; i++) {
    if (posix_memalign(&at, 4096, 65536)) exit(3);
    memset(at, 1, 65536);
    RT(cudaHostRegister(at, 65536, cudaHostRegisterDefault));
    if (i) RT(cudaHostUnregister(at));
    else truth_alloc(REGISTERED, 65536);
  }
  for (int i = 0; i < 2; i++) {
    RT(cudaMallocManaged(&at, 2 * MIB));
    if (i) RT(cudaFree(at));
    else truth_alloc(MANAGED, 2 * MIB);
  }
}

static void arrays(void) {
  cudaChannelFormatDesc floats = cudaCreateChannelDesc(32, 0, 0, 0, cudaChannelFormatKindFloat);
  cudaChannelFormatDesc bytes4 = cudaCreateChannelDesc(8, 8, 8, 8, cudaChannelFormatKindUnsigned);
  for (int i = 0; i < 2; i++) {
    cudaArray_t flat, box, layers;
    cudaMipmappedArray_t mipmap;
    RT(cudaMallocArray(&flat, &floats, 64, 64));
    RT(cudaMalloc3DArray(&box, &bytes4, make_cudaExtent(32, 16, 8), 0));
    RT(cudaMalloc3DArray(&layers, &floats, make_cudaExtent(32, 16, 5), cudaArrayLayered));
    RT(cudaMallocMipmappedArray(&mipmap, &floats, make_cudaExtent(64, 64, 0), 3, 0));
    if (i) {
      RT(cudaFreeArray(flat));
      RT(cudaFreeArray(box));
      RT(cudaFreeArray(layers));
      RT(cudaFreeMipmappedArray(mipmap));
      continue;
    }
    truth_alloc(ARRAY, 64 * 64 * 4);
    truth_alloc(ARRAY, 32 * 16 * 8 * 4);
    truth_alloc(ARRAY, 32 * 16 * 5 * 4);
    truth_alloc(ARRAY, (64 * 64 + 32 * 32 + 16 * 16) * 4);
  }
}

static void pools(cudaStream_t stream) {
  cudaMemPoolProps props;
  cudaMemPool_t pool;
  void *at;
  memset(&props, 0, sizeof props);
  props.allocType = cudaMemAllocationTypePinned;
  props.location.type = cudaMemLocationTypeDevice;
  RT(cudaMemPoolCreate(&pool, &props));
  for (int i = 0; i < 3; i++) {
    RT(cudaMallocFromPoolAsync(&at, 7000 + i, pool, stream));
    if (i) truth_alloc(ASYNC, 7000 + i);
    else RT(cudaFreeAsync(at, stream));
  }
  RT(cudaStreamSynchronize(stream));
  RT(cudaMemPoolTrimTo(pool, 0));
}

extern "C" int plugin_run(void) {
  cudaStream_t stream;
  RT(cudaStreamCreate(&stream));
  for (int i = 0; i < 30; i++) {
    char *at = rt_device(1000 * i + 1);
    if (i % 3) rt_free(at, 1000 * i + 1);
  }
  compute(stream);
  compute(0);
  pitched();
  host();
  arrays();
  pools(stream);
  rt_async(4444, cudaStreamPerThread);
  RT(cudaFree(0));
  RT(cudaDeviceSynchronize());
  return truth_finish(rt_reset);
}

#ifndef PLUGIN
int main() { return plugin_run(); }
#endif
