// A training-like step captured in global mode while other memory work goes on around it: what it
// computes, replayed many times, must not depend on being watched.
#include "../support/runtime.h"

__global__ void step(double *state, const double *input, int n) {
  int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) state[i] = state[i] * 0.5 + input[i] + i % 7;
}

static const int n = 1 << 14;
static const size_t bytes = n * sizeof(double);

static void launch_step(double *state, double *input, cudaStream_t stream) {
  int count = n;
  void *arguments[] = {&state, &input, &count};
  RT(cudaLaunchKernel((const void *)step, dim3(n / 256), dim3(256), arguments, 0, stream));
}

int main() {
  cudaStream_t stream, other;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  double *state = (double *)rt_device(bytes), *host = (double *)rt_pinned(bytes), *scratch, sum = 0;
  RT(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  RT(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
  RT(cudaMemset(state, 0, bytes));
  rt_free_async(rt_async(bytes, stream), bytes, stream); // so that the pool exists
  RT(cudaDeviceSynchronize());

  RT(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  for (int layer = 0; layer < 20; layer++) {
    RT(cudaMallocAsync((void **)&scratch, bytes, stream));
    RT(cudaMemsetAsync(scratch, layer, bytes, stream));
    launch_step(state, scratch, stream);
    RT(cudaFreeAsync(scratch, stream));
    if (layer == 10) {
      cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
      RT(cudaThreadExchangeStreamCaptureMode(&mode));
      rt_device(1234); // allowed in the relaxed mode
      rt_async(4321, other);
      rt_pinned(333);
      rt_free(rt_device(5678), 5678);
      RT(cudaThreadExchangeStreamCaptureMode(&mode));
    }
  }
  RT(cudaStreamEndCapture(stream, &graph));
  RT(cudaGraphInstantiate(&executable, graph, 0));
  for (int i = 0; i < 10; i++) RT(cudaGraphLaunch(executable, stream));
  RT(cudaStreamSynchronize(stream));
  RT(cudaMemcpy(host, state, bytes, cudaMemcpyDeviceToHost));
  for (int i = 0; i < n; i++) sum += host[i];
  printf("sum %.17g\n", sum);

  RT(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal)); // and one that breaks
  void *refused;
  cudaError_t result = cudaMalloc(&refused, 99);
  printf("forbidden: %d\n", (int)result);
  if (result == cudaSuccess) truth_alloc(DEVICE, 99);
  printf("ends: %d\n", (int)cudaStreamEndCapture(stream, &graph));
  cudaGetLastError();
  rt_device(8765);
  return truth_finish(rt_reset);
}
